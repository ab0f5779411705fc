//! Files that are there whole or not at all.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Writes a whole file or nothing, on disk before it returns: a temporary file in the same folder, `fsync`, rename,
/// `fsync` of the folder. A file that was there is replaced by the rename alone.
///
/// A new file has the mode that the process's umask gives it, and one that replaces another that one's. A symbolic link
/// is replaced, not followed.
///
/// # Errors
/// [`Error::File`] naming the file: it cannot be written, or something else than a file is there, such as a device. The
/// temporary file is removed.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let refuse = |error: std::io::Error| {
        Error::File(format!(
            "{}: cannot be written ({error}): choose a folder that exists and can be written to",
            path.display()
        ))
    };
    let there = std::fs::metadata(path).ok();
    if there.as_ref().is_some_and(|there| !there.is_file()) {
        return Err(Error::File(format!(
            "{}: cannot be written (it is no regular file): name a file",
            path.display()
        )));
    }
    // The parent of a bare file name is the empty path, which is no folder to open.
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(match there {
        Some(there) => there.permissions(),
        None => std::os::unix::fs::PermissionsExt::from_mode(0o666),
    });
    let mut file = builder.prefix(".precode-").tempfile_in(folder).map_err(refuse)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(refuse)?;
    file.persist(path).map_err(|error| refuse(error.error))?;
    // The file is whole by now. Where a folder cannot be synced (Windows, some network file systems), the renaming
    // reaches the disk when the system sees fit.
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Reads a regular file whole, after a look at how it begins.
///
/// `look` is given the file at its start, and its length in bytes; what it refuses is not read.
///
/// # Errors
/// [`Error::File`] naming the file: it is not there, no regular file, refused by `look`, or does not fit into memory.
pub fn read_whole(
    path: &Path,
    look: impl FnOnce(&mut File, u64) -> std::result::Result<(), String>,
) -> Result<Vec<u8>> {
    let refuse = |why: &dyn std::fmt::Display, remedy: &str| {
        Error::File(format!("{}: cannot be read ({why}): {remedy}", path.display()))
    };
    let unreadable = |error: std::io::Error| refuse(&error, "check the path and its permissions");
    // Asked before it is opened: opening a pipe waits for its other end.
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(refuse(&"it is no regular file", "name a file"));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    look(&mut file, about.len()).map_err(|why| Error::File(format!("{}: {why}", path.display())))?;
    let mut bytes = Vec::new();
    let large =
        || refuse(&format!("its {} bytes do not fit into memory", about.len()), "is it the right file?");
    bytes.try_reserve_exact(usize::try_from(about.len()).map_err(|_| large())?).map_err(|_| large())?;
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(unreadable)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_stays_and_modes_stay() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_path_buf(), "/dev/null".into()] {
            let message = write_whole(&path, b"nothing").unwrap_err().to_string();
            assert!(message.contains("it is no regular file"), "{message}");
            assert!(!std::fs::metadata(&path).unwrap().is_file());
        }
        let path = folder.path().join("private");
        write_whole(&path, b"first").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, b"first").unwrap();
        write_whole(&path, b"second, longer").unwrap();
        assert_eq!(read_whole(&path, |_, _| Ok(())).unwrap(), b"second, longer");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_refused_at_a_look_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, b"12345678 and more").unwrap();
        let look = |file: &mut File, length| {
            let mut start = [0; 8];
            file.read_exact(&mut start).unwrap();
            assert_eq!((&start, length), (b"12345678", 17));
            Err("not this one".to_owned())
        };
        let error = read_whole(&path, look).unwrap_err().to_string();
        assert!(error.contains("file: not this one"), "{error}");
    }

    #[test]
    fn what_cannot_be_written_or_read_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such/file");
        let error = write_whole(&missing, b"x").unwrap_err().to_string();
        assert!(error.contains("no/such/file") && error.contains("choose a folder"), "{error}");
        let read = |path: &Path| read_whole(path, |_, _| Ok(())).unwrap_err().to_string();
        assert!(read(&missing).contains("check the path"));
        assert!(read(folder.path()).contains("no regular file"));
        // A folder cannot be replaced by a file.
        assert!(write_whole(folder.path(), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
