import Synchronization

/// Time and operations of a part of a fit.
public struct FitEffort: Hashable, Sendable {
    /// Elapsed seconds.
    public internal(set) var seconds = 0.0
    /// Floating-point operations, Double ones counted twice.
    public internal(set) var operationCount = 0.0

    /// Nothing done.
    public init() {}

    /// What two groups took together.
    public static func + (a: FitEffort, b: FitEffort) -> FitEffort {
        var sum = a
        sum.seconds += b.seconds
        sum.operationCount += b.operationCount
        return sum
    }

    /// The elapsed time of work that was done so many at a time, from the sum of their times.
    public func shared(among count: Int) -> FitEffort {
        var share = self
        share.seconds /= Double(max(1, count))
        return share
    }
}

/// Counts the operations of a fit that are done and reports the share of those planned.
final class FitProgress: Sendable {
    private let total: Double
    private let report: @Sendable (Double) -> Void
    private let done = Mutex(0.0)
    private let started = ContinuousClock.now
    private let passes = Mutex(FitEffort())

    init(total: Double, report: @escaping @Sendable (Double) -> Void) {
        self.total = max(1, total)
        self.report = report
    }

    /// Operations done so far.
    var operationCount: Double { done.withLock { $0 } }

    /// Runs a walk over the rows: what grows with their number, as opposed to the eigenproblem.
    func passing<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        let (start, operationsBefore) = (ContinuousClock.now, operationCount)
        let result = try body()
        let effort = (seconds(ContinuousClock.now - start), operationCount - operationsBefore)
        passes.withLock {
            $0.seconds += effort.0
            $0.operationCount += effort.1
        }
        return result
    }

    /// What reading and products took so far.
    var passEffort: FitEffort { passes.withLock { $0 } }

    /// What everything took so far.
    var effort: FitEffort {
        var all = FitEffort()
        all.seconds = seconds(ContinuousClock.now - started)
        all.operationCount = operationCount
        return all
    }

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

private func seconds(_ duration: Duration) -> Double {
    let (whole, fraction) = duration.components
    return Double(whole) + Double(fraction) * 1e-18
}
