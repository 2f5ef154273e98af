import Dispatch
import Synchronization

/// Appends to a durable file on a thread of its own, so that the caller prepares the next bytes while these are written.
///
/// At most `Self.pendingByteCount` bytes wait (or one piece); then `append` blocks. An error of a write is thrown by the next call. An appender
/// that dies unsealed waits for the write in progress and leaves no file.
public final class FileAppender: Sendable {
    private final class State: Sendable {
        let file: Mutex<DurableFile?>
        let failure = Mutex<FileError?>(nil)
        /// Bytes that wait.
        private let pending = Mutex(0)
        private let freed = DispatchSemaphore(value: 0)

        init(_ file: consuming DurableFile) { self.file = Mutex(file) }

        /// Waits until the bytes may wait. Only one thread appends.
        func enter(_ count: Int) {
            while true {
                let hasRoom = pending.withLock { pending in
                    let hasRoom = pending == 0 || pending + count <= FileAppender.pendingByteCount
                    if hasRoom { pending += count }
                    return hasRoom
                }
                if hasRoom { return }
                freed.wait()
            }
        }

        func leave(_ count: Int) {
            pending.withLock { $0 -= count }
            freed.signal()
        }

        func write(_ bytes: [UInt8]) {
            guard failure.withLock({ $0 == nil }) else { return }
            do throws(FileError) {
                try file.withLock { (file) throws(FileError) in try file?.append(bytes.span.bytes) }
            } catch {
                failure.withLock { $0 = error }
            }
        }
    }

    /// About a block of rows: the next one is prepared while this one is written.
    private static let pendingByteCount = 64 << 20

    private let state: State
    private let queue = DispatchQueue(label: "lorif.append")

    /// Creates the temporary file; see `DurableFile`.
    public init(temporaryPath: String) throws(FileError) {
        state = State(try DurableFile(temporaryPath: temporaryPath))
    }

    deinit { queue.sync {} }

    /// Adds bytes at the end; they are written soon.
    public func append(_ bytes: [UInt8]) throws(FileError) {
        try check()
        state.enter(bytes.count)
        queue.async { [state] in
            state.write(bytes)
            state.leave(bytes.count)
        }
    }

    /// Waits for the writes, then makes the file durable and gives it its name, which must be free; nothing can be appended after.
    public func seal(as finalPath: String) throws(FileError) {
        queue.sync {}
        try check()
        guard let file = state.file.withLock({ $0.take() }) else { preconditionFailure("a file is sealed once") }
        try file.seal(as: finalPath)
    }

    private func check() throws(FileError) {
        if let error = state.failure.withLock({ $0 }) { throw error }
    }
}
