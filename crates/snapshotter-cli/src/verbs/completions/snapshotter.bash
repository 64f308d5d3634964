_snapshotter() {
    local rest="${COMP_LINE:0:COMP_POINT}" words=() word lead cut line i
    # Bash splits words at `:` and `=` too: what no blank precedes belongs to the word before.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        if ((i < COMP_CWORD)); then
            word="${COMP_WORDS[i]}"
            lead="${rest%%"$word"*}"
            rest="${rest#*"$word"}"
        else
            lead="${rest%%[![:space:]]*}"
            word="${rest#"$lead"}"
        fi
        if ((i > 0)) && [[ -z $lead ]]; then
            words[${#words[@]}-1]+="$word"
        else
            words+=("$word")
        fi
    done
    words=("${words[@]//\\/}")
    word="${words[${#words[@]}-1]}"
    # What bash takes for other words is not to be inserted again.
    local breaks="${COMP_WORDBREAKS//[^:=]/}"
    [[ -n $breaks ]] && cut="${word%"${word##*[$breaks]}"}"
    COMPREPLY=()
    while IFS= read -r line; do
        line="${line%%$'\t'*}"
        printf -v line %q "${line#"$cut"}"
        COMPREPLY+=("$line")
    done < <("${COMP_WORDS[0]}" complete -- "${words[@]}" 2>/dev/null)
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[:/] ]] && compopt -o nospace
    [[ $word == '~'* ]] && compopt -o default
    return 0
}
complete -o nosort -F _snapshotter snapshotter
