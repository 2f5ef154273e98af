import Files
import Synchronization

/// Pages that are read at once, with the padding before each.
struct PageRun: Sendable {
    var bytes: Range<Int>
    var pages: Range<Int>
    /// Pages of the run whose payload is wanted.
    var wanted: Set<Int>
}

/// The runs of a file on their way through a verification: handed out in file order, finished in any.
final class VerificationRuns: Sendable {
    private let runs: [PageRun]
    private let nextRun = Atomic(0)
    /// Up to where the kernel has been asked to read.
    private let prefetchedOffset = Atomic(0)
    private let found = Mutex<[(page: Int, error: StoreError)]>([])

    /// Between two reports of progress.
    private static let waveByteCount = 128 << 20
    /// The disk is at most this far ahead …
    private static let aheadByteCount = 64 << 20
    /// … and is asked for this much at once.
    private static let prefetchByteCount = 16 << 20

    /// The runs, in file order.
    init(_ runs: [PageRun]) { self.runs = runs }

    /// Runs of about `waveByteCount`, one range after the other.
    var waves: [Range<Int>] {
        var waves: [Range<Int>] = []
        var first = 0
        for index in runs.indices {
            let isFull = runs[index].bytes.upperBound - runs[first].bytes.lowerBound >= Self.waveByteCount
            guard isFull || index == runs.count - 1 else { continue }
            waves.append(first..<index + 1)
            first = index + 1
        }
        return waves
    }

    func byteCount(of wave: Range<Int>) -> Int { runs[wave].reduce(0) { $0 + $1.bytes.count } }

    /// The next run below an index, nil when there are no more; the disk goes on with what comes after it.
    func next(below end: Int, prefetching file: ReadableFile) -> PageRun? {
        var index = nextRun.load(ordering: .relaxed)
        while index < end {
            let (isMine, found) = nextRun.compareExchange(expected: index, desired: index + 1, ordering: .relaxed)
            guard !isMine else {
                prefetch(from: runs[index].bytes.lowerBound, file)
                return runs[index]
            }
            index = found
        }
        return nil
    }

    private func prefetch(from offset: Int, _ file: ReadableFile) {
        guard let end = runs.last?.bytes.upperBound else { return }
        let done = prefetchedOffset.load(ordering: .relaxed)
        guard done < min(end, offset + Self.aheadByteCount - Self.prefetchByteCount) else { return }
        let first = max(done, offset)
        let last = min(end, first + Self.prefetchByteCount)
        if prefetchedOffset.compareExchange(expected: done, desired: last, ordering: .relaxed).exchanged {
            file.prefetch(first..<last)
        }
    }

    /// Notes what is wrong with a run.
    func add(_ damages: [(page: Int, error: StoreError)]) {
        if !damages.isEmpty { found.withLock { $0 += damages } }
    }

    /// What was found so far, in file order.
    var damages: [StoreError] { found.withLock { $0 }.sorted { $0.page < $1.page }.map(\.error) }
}
