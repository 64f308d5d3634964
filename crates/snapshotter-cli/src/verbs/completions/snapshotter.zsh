#compdef snapshotter
_snapshotter() {
    local line entry
    local -a closed open
    [[ $PREFIX == '~'* ]] && _files && return
    for line in "${(@f)$("$words[1]" complete -- "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}"; do
        entry="${${line%%$'\t'*}//:/\\:}"
        case "$line" in
            *[:/]) open+=("$line") ;;
            *$'\t'*) closed+=("$entry:${line#*$'\t'}") ;;
            ?*) closed+=("$entry") ;;
        esac
    done
    (( $#open )) && compadd -S '' -- "${open[@]}"
    (( $#closed )) && _describe -V value closed
}
if [[ "$funcstack[1]" == _snapshotter ]]; then
    _snapshotter "$@"
else
    compdef _snapshotter snapshotter
fi
