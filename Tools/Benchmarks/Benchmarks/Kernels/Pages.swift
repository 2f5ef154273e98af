import Foundation
import Kernels
import Schema
import Scoring
import Synchronization

/// Random factors of one layer of 64×64, encoded: so many pages that they come from memory.
struct Pages: Sendable {
    static let rowCount = 1024
    static let length = 64
    static let layer = LayerSchema(name: "", inputDimension: 64, outputDimension: 64, form: .factors(rank: 1))
    private static let byteCount = 48 << 20

    let encoding: Encoding
    private let pages: [[UInt8]]

    private static let made = Mutex<[Encoding: Pages]>([:])

    /// Pages in one encoding, made once.
    static func of(_ encoding: Encoding) -> Pages {
        made.withLock { made in
            if let pages = made[encoding] { return pages }
            let pages = Pages(encoding: encoding)
            made[encoding] = pages
            return pages
        }
    }

    private init(encoding: Encoding) {
        self.encoding = encoding
        let page = encodeVectors(
            Self.numbers(Self.rowCount * Self.length, seed: 1).span, rowCount: Self.rowCount, length: Self.length,
            encoding: encoding)
        // Appended number by number: copies of one array would be one array in memory.
        pages = (0..<max(2, Self.byteCount / page.count)).map { _ in page.map { $0 } }
    }

    /// Standard normal numbers, the same for a seed.
    static func numbers(_ count: Int, seed: UInt64) -> [Float] {
        var state = seed
        func uniform() -> Float {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Float(state >> 40) * 0x1p-24 + 0x1p-26
        }
        return (0..<count).map { _ in (-2 * log(uniform())).squareRoot() * cos(2 * .pi * uniform()) }
    }

    /// A number of one page, decoded.
    func decoded(_ index: Int) -> Float {
        let page = pages[index % pages.count]
        var values = [Float](repeating: 0, count: Self.rowCount * Self.length)
        var span = values.mutableSpan
        decodeVectors(
            page.span.bytes, rowCount: Self.rowCount, length: Self.length, encoding: encoding, into: &span)
        return values[0]
    }

    /// A score of two pages' rows.
    func scored(by scorer: PageScorer, _ index: Int) -> Float {
        let (left, right) = (pages[2 * index % pages.count], pages[(2 * index + 1) % pages.count])
        var scores = [Float](repeating: 0, count: scorer.queryCount * Self.rowCount)
        var bounds = [Float](repeating: 0, count: scorer.hasBounds ? scores.count : 0)
        var scoreSpan = scores.mutableSpan
        var boundSpan = bounds.mutableSpan
        scorer.accumulate(
            left: left.span.bytes, right: right.span.bytes, rows: 0..<Self.rowCount, rowCount: Self.rowCount,
            into: &scoreSpan, bounds: &boundSpan)
        return scores[0]
    }
}
