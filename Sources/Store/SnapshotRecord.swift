public import Checksum
import Format
public import Schema

/// A generation that has been given a name: all that is needed to read it again, whatever happens to the store.
///
/// While it exists, no file that it names is removed.
public struct SnapshotRecord: Hashable, Sendable {
    /// Letters, digits, `.`, `_` and `-`.
    public let name: String
    /// The generation that it is a name of.
    public let generation: UInt64
    /// The layers and encoding at that time.
    public let schema: StoreSchema
    /// The segments, in row order.
    public let segments: [SegmentInfo]
    /// The curvature that was active.
    public internal(set) var curvature: CurvatureRecord?
    /// `Snapshot.rowDigest` at that time.
    public let rowDigest: Digest
    let nextRowNumber: UInt64
    let tombstones: [UInt64: Tombstones]

    /// The longest name.
    public static let nameByteLimit = 128

    /// Live rows.
    public var rowCount: Int {
        segments.reduce(0) { $0 + $1.rowCount } - tombstones.values.reduce(0) { $0 + $1.deletedCount }
    }

    static func isName(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        return (1...nameByteLimit).contains(bytes.count)
            && bytes.allSatisfy { byte in
                (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
                    || [0x2D, 0x2E, 0x5F].contains(byte)
            }
    }

    init(name: String, of contents: CatalogContents) {
        self.name = name
        generation = contents.state.generation
        schema = contents.schema
        segments = contents.segments
        curvature = contents.curvatures.first { $0.digest == contents.state.activeCurvature }
        rowDigest = contents.rowDigest
        nextRowNumber = contents.state.nextRowNumber
        tombstones = contents.tombstones
    }

    func payload() throws(StoreError) -> [UInt8] {
        var writer = ByteWriter()
        writer.write(generation)
        writer.write(nextRowNumber)
        writer.write(rowDigest)
        func write(_ bytes: [UInt8]) {
            writer.write(UInt64(bytes.count))
            writer.write(bytes: bytes)
        }
        write(schema.encoded())
        writer.write(UInt64(segments.count))
        for segment in segments {
            writer.write(segment.number)
            writer.write(bytes: segment.payload)
            write(try tombstones[segment.number]?.payload() ?? [])
        }
        writer.write(UInt64(curvature == nil ? 0 : 1))
        if let curvature {
            writer.write(curvature.digest)
            writer.write(bytes: curvature.payload)
        }
        return writer.bytes
    }

    init(name: String, payload: [UInt8]) throws(CatalogCodingError) {
        self.name = name
        var reader = CatalogReader(payload)
        generation = try reader.read()
        nextRowNumber = try reader.read()
        rowDigest = try reader.readDigest()
        let schemaBytes = try reader.readBytes(count: try reader.readCount())
        do {
            schema = try StoreSchema(decoding: schemaBytes)
        } catch {
            throw .rule(expected: "a schema", found: "\(error)")
        }
        let segmentCount = try reader.readCount()
        var segments: [SegmentInfo] = []
        var tombstones: [UInt64: Tombstones] = [:]
        // Not reserved: the count is not trusted, the bytes end it.
        for _ in 0..<segmentCount {
            let number: UInt64 = try reader.read()
            let segment = try SegmentInfo(
                number: number, payload: try reader.readBytes(count: SegmentInfo.payloadByteCount))
            if let last = segments.last, last.number >= number {
                throw .rule(expected: "ascending segment numbers", found: "\(number) after \(last.number)")
            }
            let bitmap = try reader.readBytes(count: try reader.readCount())
            if !bitmap.isEmpty {
                let deleted = try Tombstones(payload: bitmap)
                guard deleted.rowCount == segment.rowCount else {
                    throw .rule(expected: "tombstones of \(segment.rowCount) rows", found: "\(deleted.rowCount)")
                }
                tombstones[number] = deleted
            }
            segments.append(segment)
        }
        self.segments = segments
        self.tombstones = tombstones
        switch try reader.read(UInt64.self) {
        case 0:
            curvature = nil
            try reader.expectEnd()
        case 1:
            let digest = try reader.readDigest()
            curvature = try CurvatureRecord(digest: digest, payload: try reader.readRest())
        case let flag: throw .rule(expected: "0 or 1 curvatures", found: "\(flag)")
        }
    }
}

/// A name for the live rows that outlives the files they were in: a compaction that changes no value moves the rows into new
/// files, and what was fitted on them stays valid.
struct RowIdentity: Hashable {
    /// The digest of the files and tombstones for which this holds; of no meaning once they change.
    let files: Digest
    /// What `Snapshot.rowDigest` says for them.
    let rows: Digest

    var payload: [UInt8] {
        var writer = ByteWriter()
        writer.write(files)
        writer.write(rows)
        return writer.bytes
    }

    init(files: Digest, rows: Digest) {
        self.files = files
        self.rows = rows
    }

    init(payload: [UInt8]) throws(CatalogCodingError) {
        var reader = CatalogReader(payload)
        files = try reader.readDigest()
        rows = try reader.readDigest()
        try reader.expectEnd()
    }
}

extension CatalogContents {
    /// Of the segment files and the tombstones, in order.
    var fileDigest: Digest {
        var hasher = DigestHasher()
        for segment in segments {
            var writer = ByteWriter()
            writer.write(segment.identity.footerDigest)
            writer.write(bytes: tombstones[segment.number]?.bits ?? [])
            hasher.update(writer.bytes.span.bytes)
        }
        return hasher.digest()
    }

    /// Of the live rows: see `Snapshot.rowDigest`.
    var rowDigest: Digest {
        let files = fileDigest
        if let rowIdentity, rowIdentity.files == files { return rowIdentity.rows }
        return files
    }

    /// The generation of a named snapshot, as if it were the newest.
    func named(_ name: String) throws(StoreError) -> CatalogContents {
        guard let record = snapshots[name] else {
            throw .snapshotUnknown(name: name, known: snapshots.keys.sorted())
        }
        var view = CatalogContents(state: state, schema: record.schema)
        view.state.generation = record.generation
        view.state.nextRowNumber = record.nextRowNumber
        view.state.activeCurvature = record.curvature?.digest
        view.segments = record.segments
        view.tombstones = record.tombstones
        view.curvatures = record.curvature.map { [$0] } ?? []
        view.ingests = ingests.filter { $0.value.generation <= record.generation }
        view.rowIdentity = RowIdentity(files: view.fileDigest, rows: record.rowDigest)
        return view
    }

    /// Names of the files in segments/ that this generation or a named one needs.
    var segmentFileNames: Set<String> {
        Set(segments.map(\.fileName)).union(snapshots.values.flatMap { $0.segments.map(\.fileName) })
    }

    /// Names of the files in curvature/ that this generation or a named one needs.
    var curvatureFileNames: Set<String> {
        Set(curvatures.map(\.fileName)).union(snapshots.values.compactMap { $0.curvature?.fileName })
    }

    /// Every record but the state, as changes to an empty catalog.
    func allRecords() throws(StoreError) -> CatalogChanges {
        var changes = CatalogChanges()
        changes.put(schema.encoded(), .schema)
        for segment in segments { changes.put(segment.payload, CatalogKey(.segment, segment.number)) }
        for (number, deleted) in tombstones { changes.put(try deleted.payload(), CatalogKey(.tombstones, number)) }
        for record in curvatures { changes.put(record.payload, CatalogKey(.curvature, record.digest)) }
        for (digest, record) in ingests { changes.put(record.payload, CatalogKey(.ingest, digest)) }
        for (name, record) in snapshots { changes.put(try record.payload(), CatalogKey(snapshot: name)) }
        if let rowIdentity { changes.put(rowIdentity.payload, .rowIdentity) }
        return changes
    }
}
