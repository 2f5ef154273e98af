import Glibc

/// `errno` of this thread.
func systemErrno() -> CInt { errno }

/// Repeats a system call for as long as a signal interrupts it.
func retryingInterrupts<Result: BinaryInteger>(_ call: () -> Result) -> Result {
    while true {
        let result = call()
        if result == -1, errno == EINTR { continue }
        return result
    }
}

/// The directory that holds `path`, "." for a bare name.
public func parentDirectory(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
}
