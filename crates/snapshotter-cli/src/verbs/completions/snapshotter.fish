function __snapshotter_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    command $words[1] complete -- $words "$current" 2>/dev/null
end
complete --command snapshotter --no-files --keep-order --arguments '(__snapshotter_complete)'
