import Dispatch
import Synchronization

/// The results of `count` independent steps in order, run on all cores; of several errors that of the first step.
func concurrently<Value: Sendable>(
    _ count: Int, _ step: @Sendable (Int) throws(StoreError) -> Value
) throws(StoreError) -> [Value] {
    let results = Mutex([Result<Value, StoreError>?](repeating: nil, count: count))
    DispatchQueue.concurrentPerform(iterations: count) { index in
        let result = Result { () throws(StoreError) in try step(index) }
        results.withLock { $0[index] = result }
    }
    var values: [Value] = []
    values.reserveCapacity(count)
    for result in results.withLock({ $0 }) {
        guard let result else { preconditionFailure("every step has run") }
        values.append(try result.get())
    }
    return values
}
