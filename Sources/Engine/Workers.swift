import Dispatch
import Files
import Glibc
import LinearAlgebra
import Synchronization

/// The number of processors this process may run on.
public func availableProcessorCount() -> Int {
    max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}

/// Runs `body` for every index below `count` on up to `workers` threads, each with a worker number below `workers`.
///
/// Indices are handed out in ascending order; the first error stops the hand-out and is thrown when all threads are done.
func forEachIndex(
    below count: Int, workers: Int, _ body: @Sendable (_ index: Int, _ worker: Int) throws -> Void
) throws {
    let threadCount = max(1, min(workers, count))
    let next = Atomic<Int>(0)
    let failure = Mutex<(index: Int, error: any Error)?>(nil)
    DispatchQueue.concurrentPerform(iterations: threadCount) { worker in
        while true {
            let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < count else { return }
            do {
                try body(index, worker)
            } catch {
                failure.withLock { first in
                    if first == nil || index < first!.index { first = (index, error) }
                }
                next.store(count, ordering: .relaxed)
                return
            }
        }
    }
    if let failure = failure.withLock({ $0 }) { throw failure.error }
}

/// The results of `transform` for every index below `count`, in order, computed on up to `workers` threads.
func mapConcurrently<T: Sendable>(
    below count: Int, workers: Int, _ transform: @Sendable (Int) throws -> T
) throws -> [T] {
    let results = Mutex<[T?]>(Array(repeating: nil, count: count))
    try forEachIndex(below: count, workers: workers) { index, _ in
        let value = try transform(index)
        results.withLock { $0[index] = value }
    }
    return results.withLock { $0.compactMap { $0 } }
}

/// Sets the process up for the engine; call once, before anything else.
///
/// Libraries below become single-threaded, since the engine's workers are the only threads; freed buffers are kept for reuse.
public func prepareProcess() {
    useOneBLASThread()
    keepFreedBuffers()
}
