import Glibc

/// Lets this process open as many files as the system allows it at all; happens once.
///
/// The customary soft limit of 1024 is for programs that use `select`, which this one does not.
public func raiseOpenFileLimit() {
    _ = isRaised
}

private let isRaised: Bool = {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return false }
    limit.rlim_cur = limit.rlim_max
    return setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0
}()
