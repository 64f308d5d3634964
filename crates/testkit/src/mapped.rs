//! A file that is mapped shared and writable, as a virtual machine's memory is.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;

/// A mapping of a whole file, without a descriptor of it.
#[derive(Debug)]
pub struct Mapped {
    at: NonNull<libc::c_void>,
    len: usize,
}

#[expect(unsafe_code, reason = "a pointer belongs to no thread by itself")]
// SAFETY: the mapping belongs to the process, and only `self` writes it.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps a file that is not empty.
    ///
    /// # Panics
    /// When it cannot be opened for writing, or not be mapped.
    #[must_use]
    #[expect(unsafe_code, reason = "there is no safe way to a shared mapping")]
    pub fn new(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, wherever the kernel likes, of an open file; nothing else is at that place.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        let at = NonNull::new(at).expect("the kernel maps nothing at zero");
        Self { at, len }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether that is zero, which it never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Changes bytes of the file through the mapping.
    ///
    /// # Panics
    /// When they are not all inside.
    #[expect(unsafe_code, reason = "a mapping is memory")]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(
            offset
                .checked_add(bytes.len())
                .is_some_and(|end| end <= self.len)
        );
        // SAFETY: inside the mapping, which lives as long as `self`; nobody has a reference into it. The tests that use it
        // do not shorten the file.
        unsafe {
            let to = self.at.as_ptr().cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }

    /// Waits until the file has what was written.
    ///
    /// # Panics
    /// When the kernel says no.
    #[expect(unsafe_code, reason = "there is no safe way to msync")]
    pub fn flush(&self) {
        // SAFETY: exactly the mapping.
        let result = unsafe { libc::msync(self.at.as_ptr(), self.len, libc::MS_SYNC) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Mapped {
    #[expect(unsafe_code, reason = "there is no safe way to munmap")]
    fn drop(&mut self) {
        // SAFETY: exactly the mapping, which nobody uses after this.
        unsafe { libc::munmap(self.at.as_ptr(), self.len) };
    }
}
