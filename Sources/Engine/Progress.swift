import Synchronization

/// How far a long operation has come.
public struct ProgressUpdate: Sendable {
    /// What is being done, e.g. "ingest".
    public let stage: String
    /// What the counts count.
    public enum Unit: Sendable {
        case rows, bytes
        /// Thousandths of the work.
        case share
    }

    /// Units done and in all; nil when the total is unknown.
    public let completedCount: Int
    /// nil when the total is unknown.
    public let totalCount: Int?
    /// Bytes read or written so far.
    public let byteCount: Int
    /// What the counts count.
    public let unit: Unit

    /// An update.
    public init(stage: String, completedCount: Int, totalCount: Int?, byteCount: Int, unit: Unit = .rows) {
        self.stage = stage
        self.completedCount = completedCount
        self.totalCount = totalCount
        self.byteCount = byteCount
        self.unit = unit
    }
}

/// What a caller hears from, and tells, a running operation.
public struct OperationControl: Sendable {
    /// Called with progress from any thread; must be quick.
    public let report: @Sendable (ProgressUpdate) -> Void
    /// Set to stop the operation at the next block; nothing is committed then.
    public let cancellation: Cancellation

    /// Reports to `report`, and stops when `cancellation` says so.
    public init(
        cancellation: Cancellation = Cancellation(), report: @escaping @Sendable (ProgressUpdate) -> Void = { _ in }
    ) {
        self.report = report
        self.cancellation = cancellation
    }
}

/// A request to stop, set from any thread or from a signal handler.
public final class Cancellation: Sendable {
    private let flag = Atomic<Bool>(false)

    /// Nobody has asked yet.
    public init() {}

    /// Asks the operation to stop.
    public func cancel() { flag.store(true, ordering: .relaxed) }

    /// Forgets that a stop was asked for: for a program that goes on with other operations.
    public func reset() { flag.store(false, ordering: .relaxed) }

    /// Whether a stop was asked for.
    public var isCancelled: Bool { flag.load(ordering: .relaxed) }

    /// Throws `EngineError.cancelled` once a stop was asked for.
    func check() throws(EngineError) {
        if isCancelled { throw .cancelled }
    }
}
