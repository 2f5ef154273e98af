import Files

extension InterchangeError {
    /// Whether the environment failed (disk, permission) rather than the input: the same command may work later.
    public var isEnvironmental: Bool {
        switch self {
        case .file(.failed(_, _, _)): true
        default: false
        }
    }
}
