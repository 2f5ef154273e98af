import Dispatch
import Synchronization

/// The results of two independent steps, run at the same time; of two errors the first step's.
func concurrently<A: Sendable, B: Sendable>(
    _ first: @Sendable () throws(StoreError) -> A, _ second: @Sendable () throws(StoreError) -> B
) throws(StoreError) -> (A, B) {
    let firstResult = Mutex<Result<A, StoreError>?>(nil)
    let secondResult = Mutex<Result<B, StoreError>?>(nil)
    DispatchQueue.concurrentPerform(iterations: 2) { step in
        if step == 0 {
            let result = Result { () throws(StoreError) in try first() }
            firstResult.withLock { $0 = result }
        } else {
            let result = Result { () throws(StoreError) in try second() }
            secondResult.withLock { $0 = result }
        }
    }
    guard let a = firstResult.withLock({ $0 }), let b = secondResult.withLock({ $0 }) else {
        preconditionFailure("both steps have run")
    }
    return (try a.get(), try b.get())
}
