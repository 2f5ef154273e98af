import CKernels
import Schema

/// Rows of one vector page or of the two pages of a component, and where their scores go.
///
/// Query q's score of row r is element q · stride + r - rows.lowerBound of the spans of scores and bounds.
/// What a kernel adds to a row depends on that row alone: cutting a range in any way gives the same bits.
public struct ScanRange: Sendable {
    /// The rows of the page.
    public let rowCount: Int
    /// Those to score.
    public let rows: Range<Int>
    /// The distance of two queries' scores.
    public let stride: Int

    /// `rows` must be rows of the page, `stride` at least their number.
    public init(rowCount: Int, rows: Range<Int>, stride: Int) {
        precondition(rows.lowerBound >= 0 && rows.upperBound <= rowCount, "rows outside the page")
        precondition(stride >= rows.count, "queries' scores overlap")
        self.rowCount = rowCount
        self.rows = rows
        self.stride = stride
    }

    /// All rows of a page.
    public init(rowCount: Int) {
        self.init(rowCount: rowCount, rows: 0..<rowCount, stride: rowCount)
    }

    /// Numbers that the scores of so many queries span.
    func scoreCount(queryCount: Int) -> Int {
        queryCount == 0 ? 0 : (queryCount - 1) * stride + rows.count
    }
}

/// The pages of one call as the C loops take them; valid inside `body`. Not called for a page without bytes.
func withPage(
    _ payload: RawSpan, length: Int, encoding: Encoding, range: ScanRange,
    body: (UnsafePointer<lorif_vectors>) -> Void
) {
    let byteCount = vectorPayloadByteCount(rowCount: range.rowCount, length: length, encoding: encoding)
    precondition(payload.byteCount == byteCount, "payload of \(payload.byteCount) bytes, expected \(byteCount)")
    unsafe payload.withUnsafeBytes { payload in
        guard let source = payload.baseAddress else { return }
        var page = unsafe lorif_vectors_of(
            Int32(encoding.rawValue), source.assumingMemoryBound(to: UInt8.self), range.rowCount, length)
        unsafe withUnsafePointer(to: &page) { unsafe body($0) }
    }
}

func withScores(
    _ scores: inout MutableSpan<Float>, queryCount: Int, range: ScanRange,
    body: (UnsafeMutablePointer<Float>) -> Void
) {
    precondition(scores.count >= range.scoreCount(queryCount: queryCount), "too few scores")
    unsafe scores.withUnsafeMutableBufferPointer { scores in
        guard let target = scores.baseAddress else { return }
        unsafe body(target)
    }
}

extension Encoding {
    /// Whether pages hold a vector after the other, which is what `FactorPairs` and `DenseQueries` read.
    var isRowMajor: Bool { interleavedRowCount == 1 }
}
