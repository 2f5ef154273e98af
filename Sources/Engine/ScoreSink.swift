import Interchange
import Synchronization

/// The score file of a query, shared by the workers of its scans; owns the writer, which cannot be copied.
final class ScoreSink: Sendable {
    private let writer: Mutex<ScoreMatrixWriter?>

    init(
        path: String, queryCount: Int, dampingCount: Int, exampleCount: Int, metadata: [String: String]
    ) throws(InterchangeError) {
        writer = Mutex(
            try ScoreMatrixWriter(
                path: path, queryCount: queryCount, matrixCount: dampingCount, exampleCount: exampleCount,
                metadata: metadata))
    }

    /// Writes some columns of one row; safe from any thread.
    func write(query: Int, firstExample: Int, scores: Span<Float>) throws {
        try writer.withLock { writer in
            try writer?.write(query: query, firstExample: firstExample, scores: scores)
        }
    }

    /// Gives the file its name; every score must have been written.
    func finish() throws {
        try writer.withLock { writer in
            if let whole = writer.take() { try whole.finish() }
        }
    }
}
