import Dispatch
import Synchronization

/// Runs `body` for every index below `count`, at most `workers` at a time, and returns the results in order.
///
/// Work is handed out one index at a time, so uneven items balance. Nothing about the results depends on `workers`
/// as long as `body` depends on its index only. The first error in index order among those met is thrown; no further
/// indices are started once one has failed.
public func parallelMap<Result: Sendable, Failure: Error>(
    count: Int, workers: Int, _ body: @Sendable (Int) throws(Failure) -> Result
) throws(Failure) -> [Result] {
    precondition(count >= 0 && workers > 0, "negative count or no workers")
    if workers == 1 || count <= 1 {
        var results: [Result] = []
        results.reserveCapacity(count)
        for index in 0..<count { results.append(try body(index)) }
        return results
    }
    let slots = Mutex([Swift.Result<Result, Failure>?](repeating: nil, count: count))
    let next = Atomic(0)
    let failed = Atomic(false)
    DispatchQueue.concurrentPerform(iterations: min(workers, count)) { _ in
        while !failed.load(ordering: .relaxed) {
            let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
            guard index < count else { return }
            let result: Swift.Result<Result, Failure>
            do throws(Failure) {
                result = .success(try body(index))
            } catch {
                failed.store(true, ordering: .relaxed)
                result = .failure(error)
            }
            slots.withLock { $0[index] = result }
        }
    }
    let filled = slots.withLock { $0 }
    if failed.load(ordering: .relaxed) {
        for case .failure(let error) in filled.compactMap({ $0 }) { throw error }
    }
    return try filled.map { slot throws(Failure) in
        guard let slot else { preconditionFailure("a worker skipped an index") }
        return try slot.get()
    }
}

/// Runs `body` with exclusive access to every element of an array, at most `workers` at a time.
///
/// The elements may be large buffers: none is copied.
public func parallelUpdate<Element: Sendable, Failure: Error>(
    _ elements: inout [Element], workers: Int, _ body: @Sendable (Int, inout Element) throws(Failure) -> Void
) throws(Failure) {
    precondition(workers > 0, "no workers")
    let count = elements.count
    if workers == 1 || count <= 1 {
        for index in 0..<count { try body(index, &elements[index]) }
        return
    }
    let failure = Mutex<(index: Int, error: Failure)?>(nil)
    let next = Atomic(0)
    unsafe elements.withUnsafeMutableBufferPointer { buffer in
        // Every index is taken by one worker only, so no two touch the same element.
        let shared = unsafe SharedElements(base: buffer.baseAddress)
        DispatchQueue.concurrentPerform(iterations: min(workers, count)) { _ in
            while failure.withLock({ $0 == nil }) {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < count, let base = unsafe shared.base else { return }
                do throws(Failure) {
                    try unsafe body(index, &base[index])
                } catch {
                    failure.withLock { if $0 == nil || index < $0?.index ?? 0 { $0 = (index, error) } }
                }
            }
        }
    }
    if let failure = failure.withLock({ $0 }) { throw failure.error }
}

/// Elements that threads update, each index by one thread only and all before the caller goes on; so the pointer may cross threads.
private struct SharedElements<Element>: @unchecked Sendable {
    let base: UnsafeMutablePointer<Element>?
}
