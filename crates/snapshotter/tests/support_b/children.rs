//! Children: this test binary once more, with a part to play. A test function that does nothing without a part is
//! where they start.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use testkit::child::{Child, State, this_test};

use super::{FORMAT_VARIABLE, format};

/// The environment variable that tells a child its part.
const PART: &str = "SNAPSHOTTER_TEST_PART";

/// The test function children start in.
pub const STAGE_DOOR: &str = "children_start_here";

/// The part this process has to play, if it is a child.
pub fn part() -> Option<String> {
    let part = std::env::var(PART).ok()?;
    // An aborted child's memory is nobody's business.
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    Some(part)
}

/// What the parent said of `name`.
pub fn told(name: &str) -> PathBuf {
    let value = std::env::var_os(format!("SNAPSHOTTER_TEST_{name}"));
    value.unwrap_or_else(|| panic!("{name} is told")).into()
}

/// What the parent said of `name`, as a number.
pub fn told_number(name: &str) -> u64 {
    let value = told(name);
    value
        .to_str()
        .and_then(|text| text.parse().ok())
        .expect("a number")
}

/// A command for a child that plays `part` of the module, which is called by its `module_path!()`.
pub fn playing(module: &str, part: &str) -> Command {
    let mut command = this_test(module, STAGE_DOOR);
    command.env(PART, part).stdout(Stdio::null());
    command.env(FORMAT_VARIABLE, format().as_str());
    command
}

/// The same as the user and group 65534, who need not be able to reach this binary by its path.
pub fn playing_as_nobody(module: &str, part: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let model = playing(module, part);
    let mut command = Command::new("/proc/self/exe");
    command
        .args(model.get_args())
        .env(PART, part)
        .stdout(Stdio::null())
        .current_dir("/")
        .uid(NOBODY)
        .gid(NOBODY);
    command
}

/// An ordinary user.
pub const NOBODY: u32 = 65534;

/// Tells the child something.
pub fn tell<'c>(command: &'c mut Command, name: &str, value: impl AsRef<OsStr>) -> &'c mut Command {
    command.env(format!("SNAPSHOTTER_TEST_{name}"), value)
}

/// Starts it.
pub fn start(command: &mut Command) -> Child {
    Child::spawn(command).expect("a child starts")
}

/// Waits until it stops itself.
#[track_caller]
pub fn stopped(child: &mut Child) {
    let state = child.wait().expect("a child to wait for");
    assert!(matches!(state, State::Stopped(_)), "{state:?}");
}

/// Has it go on and end well.
#[track_caller]
pub fn ends_well(child: &mut Child) {
    child.resume().expect("a stopped child");
    assert_eq!(child.wait().expect("a child to wait for"), State::Exited(0));
}

/// Stops this process until somebody sends `SIGCONT`: this thread here, the others as soon as the kernel gets to them.
#[expect(
    unsafe_code,
    reason = "only a signal to this thread stops it at this very place"
)]
pub fn stop_here() {
    // SAFETY: raise takes a plain integer and touches no memory of ours.
    let raised = unsafe { libc::raise(libc::SIGSTOP) };
    assert_eq!(raised, 0, "a thread may stop itself");
}
