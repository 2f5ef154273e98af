import Synchronization

/// Adds up what blocks give, in the order of the blocks whatever the order in which they are done: sums depend on it.
final class BlockTotals: Sendable {
    /// What one block gives, or all of them together.
    struct Sums {
        /// Σ |score| by query; empty for a block that was not read.
        var magnitudes: [Double] = []
        /// Tallies by query; empty without row groups.
        var groups: [[UInt32: RowGroups.Tally]] = []
    }

    private struct State {
        var nextBlock = 0
        var waiting: [Int: Sums] = [:]
        var totals: Sums
    }

    private let state: Mutex<State>

    init(queryCount: Int) {
        state = Mutex(
            State(
                totals: Sums(
                    magnitudes: Array(repeating: 0, count: queryCount), groups: Array(repeating: [:], count: queryCount)
                )))
    }

    /// Adds a block's sums.
    func add(_ sums: Sums, block: Int) {
        state.withLock { state in
            state.waiting[block] = sums
            while let next = state.waiting.removeValue(forKey: state.nextBlock) {
                for (query, magnitude) in next.magnitudes.enumerated() { state.totals.magnitudes[query] += magnitude }
                for (query, groups) in next.groups.enumerated() {
                    for (group, tally) in groups { state.totals.groups[query][group, default: .empty].add(tally) }
                }
                state.nextBlock += 1
            }
        }
    }

    /// By query, once every block was added.
    var totals: Sums { state.withLock { $0.totals } }
}
