import Synchronization

/// Counts the operations of a fit that are done and reports the share of those planned.
final class FitProgress: Sendable {
    private let total: Double
    private let report: @Sendable (Double) -> Void
    private let done = Mutex(0.0)

    init(total: Double, report: @escaping @Sendable (Double) -> Void) {
        self.total = max(1, total)
        self.report = report
    }

    /// Operations done so far.
    var operationCount: Double { done.withLock { $0 } }

    /// Everything is done: the operations of eigensolvers are planned, but known afterwards only.
    func finish() { report(1) }

    /// Reports are serialised; they never go back, and only `finish` says 1.
    func advance(by operations: Double) {
        done.withLock { done in
            done += operations
            report(min(0.999, done / total))
        }
    }
}
