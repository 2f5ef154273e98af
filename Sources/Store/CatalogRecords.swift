public import Checksum
import Format
import Schema
import Zstd

/// Which store this is, and where it stands; one record, rewritten by every commit.
struct StateRecord: Hashable {
    var storeIdentity: StoreIdentity
    var generation: UInt64
    /// The LMDB transaction that wrote this record: betrays a meta page that shows an older state as the newest one.
    var transaction: UInt64
    var nextSegmentNumber: UInt64
    var nextRowNumber: UInt64
    /// Of all other records: how many, and the sum mod 2^128 of the digests of key and value.
    var recordCount: UInt64
    var recordDigest: UInt128
    var activeCurvature: Digest?

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(bytes: storeIdentity.bytes)
        writer.write(generation)
        writer.write(transaction)
        writer.write(nextSegmentNumber)
        writer.write(nextRowNumber)
        writer.write(recordCount)
        writer.write(UInt64(truncatingIfNeeded: recordDigest))
        writer.write(UInt64(truncatingIfNeeded: recordDigest >> 64))
        writer.write(UInt64(activeCurvature == nil ? 0 : 1))
        writer.write(activeCurvature ?? Digest(high: 0, low: 0))
        return writer.bytes
    }

    init(
        storeIdentity: StoreIdentity, generation: UInt64, transaction: UInt64, nextSegmentNumber: UInt64,
        nextRowNumber: UInt64, recordCount: UInt64, recordDigest: UInt128, activeCurvature: Digest?
    ) {
        self.storeIdentity = storeIdentity
        self.generation = generation
        self.transaction = transaction
        self.nextSegmentNumber = nextSegmentNumber
        self.nextRowNumber = nextRowNumber
        self.recordCount = recordCount
        self.recordDigest = recordDigest
        self.activeCurvature = activeCurvature
    }

    init(payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        storeIdentity = StoreIdentity(high: try reader.read(), low: try reader.read())
        generation = try reader.read()
        transaction = try reader.read()
        nextSegmentNumber = try reader.read()
        nextRowNumber = try reader.read()
        recordCount = try reader.read()
        let low = UInt128(try reader.read(UInt64.self))
        recordDigest = low | UInt128(try reader.read(UInt64.self)) << 64
        let isActive: UInt64 = try reader.read()
        let digest = try reader.readDigest()
        guard isActive <= 1, isActive == 1 || digest == Digest(high: 0, low: 0) else {
            throw .rule(expected: "0 or 1 active curvatures", found: "\(isActive)")
        }
        activeCurvature = isActive == 1 ? digest : nil
        try reader.expectEnd()
    }
}

/// One segment of a store, as the catalog knows it.
public struct SegmentInfo: Hashable, Sendable {
    /// The number in its file name; never used twice.
    public let number: UInt64
    /// The running number of its first row, counted over all rows that the store ever took.
    public let firstRowNumber: UInt64
    /// The generation whose commit added it.
    public let addedGeneration: UInt64
    /// What the file must be, with its row count.
    public let identity: SegmentIdentity

    /// Rows, deleted ones included.
    public var rowCount: Int { identity.rowCount }

    /// The name of its file in segments/.
    public var fileName: String { SegmentInfo.fileName(number) }

    static func fileName(_ number: UInt64) -> String {
        hexadecimal(number) + ".segment"
    }

    static let payloadByteCount = 64

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(UInt64(rowCount))
        writer.write(firstRowNumber)
        writer.write(addedGeneration)
        writer.write(identity.file)
        return writer.bytes
    }

    init(number: UInt64, firstRowNumber: UInt64, addedGeneration: UInt64, identity: SegmentIdentity) {
        self.number = number
        self.firstRowNumber = firstRowNumber
        self.addedGeneration = addedGeneration
        self.identity = identity
    }

    init(number: UInt64, payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        self.number = number
        let rowCount = try reader.readCount()
        firstRowNumber = try reader.read()
        addedGeneration = try reader.read()
        identity = SegmentIdentity(rowCount: rowCount, file: try reader.readIdentity())
        try reader.expectEnd()
        guard rowCount >= 1 else { throw .rule(expected: "at least one row", found: "\(rowCount)") }
    }
}

/// Which rows of a segment are deleted: one bit per row.
struct Tombstones: Hashable {
    let rowCount: Int
    /// Bit `row % 8` of byte `row / 8`, set for deleted rows; the bits after the last row are zero.
    private(set) var bits: [UInt8]
    private(set) var deletedCount: Int

    init(rowCount: Int) {
        self.rowCount = rowCount
        bits = [UInt8](repeating: 0, count: (rowCount + 7) / 8)
        deletedCount = 0
    }

    func isDeleted(_ row: Int) -> Bool {
        precondition(row >= 0 && row < rowCount)
        return bits[row / 8] >> UInt8(row % 8) & 1 == 1
    }

    /// Deletes a row; false if it was deleted already.
    mutating func delete(_ row: Int) -> Bool {
        guard !isDeleted(row) else { return false }
        bits[row / 8] |= 1 << UInt8(row % 8)
        deletedCount += 1
        return true
    }

    private static let rawCodec: UInt64 = 0
    private static let zstdCodec: UInt64 = 1

    func payload() throws(StoreError) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(UInt64(rowCount))
        writer.write(UInt64(deletedCount))
        let packed: [UInt8]?
        do {
            var compressor = try ZstdCompressor()
            packed = try compressor.compress(bits.span.bytes, atMost: bits.count - 1)
        } catch {
            throw .compression(error)
        }
        writer.write(packed == nil ? Self.rawCodec : Self.zstdCodec)
        writer.write(bytes: packed ?? bits)
        return writer.bytes
    }

    init(payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        rowCount = try reader.readCount()
        deletedCount = try reader.readCount()
        let codec: UInt64 = try reader.read()
        let stored = try reader.readRest()
        guard (1...Limits.segmentRowCount).contains(rowCount) else {
            throw .rule(expected: "1 to \(Limits.segmentRowCount) rows", found: "\(rowCount)")
        }
        let byteCount = (rowCount + 7) / 8
        switch codec {
        case Self.rawCodec: bits = stored
        case Self.zstdCodec:
            do {
                var decompressor = try ZstdDecompressor()
                bits = try decompressor.decompress(stored.span.bytes, expectedByteCount: byteCount)
            } catch {
                throw .rule(expected: "a zstd frame of \(byteCount) bytes", found: "\(error)")
            }
        default: throw .rule(expected: "codec 0 or 1", found: "\(codec)")
        }
        let count = bits.reduce(0) { $0 + $1.nonzeroBitCount }
        guard bits.count == byteCount, count == deletedCount, deletedCount >= 1,
            rowCount % 8 == 0 || bits[byteCount - 1] >> UInt8(rowCount % 8) == 0
        else {
            throw .rule(
                expected: "\(deletedCount) deleted rows of \(rowCount)", found: "\(count) in \(bits.count) bytes")
        }
    }
}

/// What the store remembers of a batch file that it has taken in.
public struct IngestRecord: Hashable, Sendable {
    /// The digest of the whole file.
    public let fileDigest: Digest
    /// The file's path, as it was given.
    public let path: String
    /// Rows that came from it.
    public let rowCount: Int
    /// The running number of its first row.
    public let firstRowNumber: UInt64
    /// The generation whose commit made it visible.
    public let generation: UInt64
    /// JSON text: whatever the file said about its origin.
    public let provenance: String

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(UInt64(rowCount))
        writer.write(firstRowNumber)
        writer.write(generation)
        writer.write(string: path)
        writer.write(string: provenance)
        return writer.bytes
    }

    init(
        fileDigest: Digest, path: String, rowCount: Int, firstRowNumber: UInt64, generation: UInt64, provenance: String
    ) {
        self.fileDigest = fileDigest
        self.path = path
        self.rowCount = rowCount
        self.firstRowNumber = firstRowNumber
        self.generation = generation
        self.provenance = provenance
    }

    init(fileDigest: Digest, payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        self.fileDigest = fileDigest
        rowCount = try reader.readCount()
        firstRowNumber = try reader.read()
        generation = try reader.read()
        path = try reader.readString()
        provenance = try reader.readString()
        try reader.expectEnd()
    }
}

extension ByteWriter {
    mutating func write(_ identity: PagedFileIdentity) {
        write(UInt64(identity.fileLength))
        write(UInt64(identity.footerOffset))
        write(UInt64(identity.footerLength))
        write(identity.footerDigest)
    }
}

extension CatalogReader {
    mutating func readIdentity() throws(CatalogCodingError) -> PagedFileIdentity {
        PagedFileIdentity(
            fileLength: try readCount(), footerOffset: try readCount(), footerLength: try readCount(),
            footerDigest: try readDigest())
    }
}
