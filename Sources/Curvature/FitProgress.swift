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

    /// Everything is done: the operations of eigensolvers are planned, but known afterwards only.
    func finish() { advance(by: .infinity) }

    /// Reports are serialised; they never exceed 1 and never go back.
    func advance(by operations: Double) {
        done.withLock { done in
            done = min(total, done + operations)
            report(done / total)
        }
    }
}
