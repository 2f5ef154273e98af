import Checksum
import Format
import Schema
public import Zstd

/// Whether compression of a page is tried, and after which split into byte planes.
public enum PageCompression: Hashable, Sendable {
    /// Never: the bytes are known to be noise, or must be usable in place.
    case none
    /// zstd level 1 over this many byte planes (1, 2 or 4); kept when it saves at least one part in `leastSaving`.
    case zstd(byteSplitStride: Int, leastSaving: Int = 10)

    /// Only the exponents of floating-point numbers compress, by a seventh in f16; the low-bit and int8 codes are noise.
    ///
    /// A scan reads vectors in place many times faster than it decompresses them: only a third is worth that.
    static func ofVectors(_ encoding: Encoding) -> PageCompression {
        switch encoding {
        case .f32: .zstd(byteSplitStride: 4, leastSaving: 3)
        case .f16, .bf16: .zstd(byteSplitStride: 2, leastSaving: 3)
        case .int8, .q4, .q3, .q2, .q1: .none
        }
    }
}

/// A page ready to be written: stored bytes and their checksum.
///
/// Depends on the payload and its place alone, so that pages may be encoded on any thread in any order.
public struct EncodedPage: Sendable {
    let column: Int
    let block: Int
    let rowCount: Int
    let rawLength: Int
    let codec: PageCodec
    let byteSplitStride: Int
    let stored: [UInt8]
    let checksum: UInt64

    /// Encodes a payload of 1 to `Limits.pageBytes` bytes, a multiple of the stride. O(bytes).
    public init(
        _ payload: [UInt8], column: Int, block: Int, rowCount: Int, compression: PageCompression,
        compressor: inout ZstdCompressor
    ) throws(StoreError) {
        var frame: (bytes: [UInt8], stride: Int)?
        if case .zstd(let stride, let leastSaving) = compression,
            let bytes = try Self.compressed(
                payload, stride: stride, leastSaving: leastSaving, compressor: &compressor)
        {
            frame = (bytes, stride)
        }
        self.init(payload, frame: frame, column: column, block: block, rowCount: rowCount)
    }

    /// The same with a compressor of its own, if it takes one.
    init(
        _ payload: [UInt8], column: Int, block: Int, rowCount: Int, compression: PageCompression
    ) throws(StoreError) {
        guard case .zstd = compression else {
            self.init(payload, frame: nil, column: column, block: block, rowCount: rowCount)
            return
        }
        var compressor: ZstdCompressor
        do {
            compressor = try ZstdCompressor()
        } catch {
            throw .compression(error)
        }
        try self.init(
            payload, column: column, block: block, rowCount: rowCount, compression: compression, compressor: &compressor
        )
    }

    private init(
        _ payload: [UInt8], frame: (bytes: [UInt8], stride: Int)?, column: Int, block: Int, rowCount: Int
    ) {
        precondition((1...Limits.pageBytes).contains(payload.count), "a page holds 1 to \(Limits.pageBytes) bytes")
        self.column = column
        self.block = block
        self.rowCount = rowCount
        rawLength = payload.count
        codec = frame == nil ? .raw : .zstd
        byteSplitStride = frame?.stride ?? 1
        stored = frame?.bytes ?? payload
        checksum = xxh3(stored, seed: PageEntry.seed(column: UInt32(column), block: UInt32(block)))
    }

    /// A page moved from another place as it is stored: only the checksum depends on the place.
    init(stored: [UInt8], of entry: PageEntry, column: Int, block: Int) {
        self.column = column
        self.block = block
        rowCount = Int(entry.rowCount)
        rawLength = Int(entry.rawLength)
        codec = entry.codec
        byteSplitStride = Int(entry.byteSplitStride)
        self.stored = stored
        checksum = xxh3(stored, seed: PageEntry.seed(column: UInt32(column), block: UInt32(block)))
    }

    /// Pages of at least this many bytes are sampled first.
    private static let sampledPageByteCount = 256 << 10
    private static let samplePieceByteCount = 16 << 10
    private static let samplePieceCount = 4

    /// The frame, or nil when it does not save one part in `leastSaving` (or, for a sample of a large page, not even half of that).
    private static func compressed(
        _ payload: [UInt8], stride: Int, leastSaving: Int, compressor: inout ZstdCompressor
    ) throws(StoreError) -> [UInt8]? {
        do {
            if payload.count >= sampledPageByteCount {
                let sample = sample(of: payload)
                let planes = BytePlanes.split(sample.span.bytes, stride: stride)
                let limit = sample.count - sample.count / (2 * leastSaving)
                guard try compressor.compress(planes.span.bytes, atMost: limit) != nil else { return nil }
            }
            let limit = payload.count - (payload.count + leastSaving - 1) / leastSaving
            if stride == 1 { return try compressor.compress(payload.span.bytes, atMost: limit) }
            let planes = BytePlanes.split(payload.span.bytes, stride: stride)
            return try compressor.compress(planes.span.bytes, atMost: limit)
        } catch {
            throw .compression(error)
        }
    }

    /// Pieces spread evenly over the payload, beginning at multiples of 8 so that numbers stay whole.
    private static func sample(of payload: [UInt8]) -> [UInt8] {
        var sample: [UInt8] = []
        sample.reserveCapacity(samplePieceCount * samplePieceByteCount)
        for piece in 0..<samplePieceCount {
            let start = payload.count / samplePieceCount * piece / 8 * 8
            sample.append(contentsOf: payload[start..<start + samplePieceByteCount])
        }
        return sample
    }
}
