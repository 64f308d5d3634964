//! `snapshotter completions`: the scripts are not only printed, a shell loads them.

mod support;

use std::process::Command;

use support::Place;

/// What a shell said, if it is here; a shell that is not is told of.
fn shell(name: &str, args: &[&str], script: &str) -> Option<String> {
    let place = Place::new();
    let printed = place.run(["completions", name]).succeeded().out;
    place.write("script", printed.as_bytes());
    let script = script.replace("SCRIPT", place.path("script").to_str().unwrap());
    let output = match Command::new(name).args(args).arg("-c").arg(script).output() {
        Ok(output) => output,
        Err(error) => {
            testkit::mount::report_skip(format!("{name} is not here: {error}"));
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    Some(said)
}

#[test]
fn bash_loads_the_script_and_completes() {
    let script = "source SCRIPT; COMP_WORDS=(snapshotter res); COMP_CWORD=1; \
                  _snapshotter snapshotter res snapshotter; echo \"${COMPREPLY[*]}\"";
    if let Some(said) = shell("bash", &["--norc"], script) {
        assert_eq!(said, "restore\n");
    }
}

#[test]
fn zsh_loads_the_script() {
    let script = "autoload -Uz compinit; compinit -D -u; source SCRIPT; whence -w _snapshotter; echo $_comps[snapshotter]";
    if let Some(said) = shell("zsh", &["-f"], script) {
        assert_eq!(said, "_snapshotter: function\n_snapshotter\n");
    }
}

#[test]
fn other_shells_have_one_too() {
    let place = Place::new();
    for shell in ["fish", "elvish", "powershell"] {
        assert!(
            place
                .run(["completions", shell])
                .succeeded()
                .out
                .contains("snapshotter")
        );
    }
    place.run(["completions", "csh"]).exited(2);
    place.run(["completions"]).exited(2);
}

#[test]
fn help() {
    assert_session!(
        "help",
        Place::new().run(["completions", "--help"]).succeeded()
    );
}
