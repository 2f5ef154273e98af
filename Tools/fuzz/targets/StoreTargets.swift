import Checksum
import Files
@testable import Format
import Glibc
import Schema
@testable import Store
import Zstd

/// Reads everything of a segment that any command reads.
func readSegment(_ path: String) {
    guard let segment = try? SegmentReader.openInput(path) else { return }
    _ = segment.damages()
    for block in 0..<segment.blockCount {
        for layer in segment.schema.layers.indices { _ = try? segment.readTile(block: block, layer: layer) }
        _ = try? segment.readIdentifiers(block: block)
        _ = try? segment.readMetadata(block: block)
        _ = try? segment.readNorms(block: block)
        _ = try? segment.readResidualNorms(block: block)
    }
    _ = try? segment.row(ofIdentifier: "row-1")
    for row in 0..<min(4, segment.rowCount) {
        _ = try? segment.readRow(row)
        _ = try? segment.identifier(ofRow: row)
    }
    _ = segment.columnSummaries
    _ = segment.pageSummaries
}

/// Reads a curvature file as one that no catalog names, and its groups.
func readCurvature(_ path: String) {
    guard let record = try? CurvatureFile.record(ofFile: path),
        let file = try? PagedFileReader(path: path, magic: .curvature),
        let schema = try? StoreSchema(decoding: file.footer.schema)
    else { return }
    _ = try? CurvatureFile(path: path, record: record, schema: schema).readGroups()
}

/// Reads a coordinates file, whatever curvature and segment it says that it is of.
func readCoordinates(_ path: String) {
    guard let file = try? PagedFileReader(path: path, magic: .coordinates), !file.footer.columns.isEmpty,
        let page = file.pageNumber(column: 0, block: 0), let payload = try? file.readPage(page),
        let description = try? CoordinatesDescription(
            payload: payload, rowCount: file.footer.rowCount, rowsPerBlock: file.footer.rowsPerBlock)
    else { return }
    let identity = PagedFileIdentity(
        FileTail(footerOffset: 0, footerLength: 0, fileLength: 0, footerDigest: description.segment))
    let segment = SegmentInfo(
        number: 0, firstRowNumber: 0, addedGeneration: 0,
        identity: SegmentIdentity(rowCount: description.rowCount, file: identity))
    guard let coordinates = try? CoordinatesReader(path: path, curvature: description.curvature, segment: segment)
    else {
        return
    }
    _ = coordinates.damages()
    for block in 0..<description.blockCount {
        for group in description.ranks.indices { _ = try? coordinates.read(block: block, group: group) }
    }
}

/// Decodes a page's payload as one of every kind.
func readPage(_ bytes: [UInt8]) {
    guard bytes.count >= 3 else { return }
    let rowCount = Int(bytes[1]) | Int(bytes[2]) << 8
    let payload = Array(bytes.dropFirst(3))
    switch bytes[0] % 6 {
    case 0:
        // Values have more than one encoding; what was read must be read again from what is written.
        if let values = try? FieldPage.decode(payload, rowCount: rowCount) {
            expect((try? FieldPage.decode(FieldPage.encode(values), rowCount: rowCount)) == values, "a field page")
        }
    case 1:
        _ = try? IdentifierPage.hashes(payload, rowCount: rowCount)
        for row in 0..<min(3, rowCount) { _ = try? IdentifierPage.decode(payload, row: row, rowCount: rowCount) }
        if let identifiers = try? IdentifierPage.decode(payload, rowCount: rowCount) {
            expect(IdentifierPage.encode(identifiers) == payload, "an identifier page")
        }
    case 2:
        _ = try? NormPage.rowNorms(payload, layerCount: 3, rowCount: rowCount)
        if let norms = try? NormPage.bits(payload, layerCount: 3, rowCount: rowCount) {
            expect(NormPage.encode(norms) == payload, "a norm page")
        }
    case 3:
        _ = try? IdentifierIndexPage.rows(of: 7, in: payload, entryCount: rowCount, segmentRowCount: 100)
        if let entries = try? IdentifierIndexPage.decode(payload, entryCount: rowCount, segmentRowCount: 100) {
            expect(IdentifierIndexPage.encode(entries[...]) == payload, "an index page")
        }
    case 4:
        if let blocks = try? BlockStatistics.decode(payload, blockCount: rowCount) {
            expect(BlockStatistics.encode(blocks) == payload, "block statistics")
        }
    default:
        for stride in [2, 4] where payload.count % stride == 0 {
            let joined = BytePlanes.join(payload.span.bytes, stride: stride)
            expect(BytePlanes.split(joined.span.bytes, stride: stride) == payload, "planes")
        }
    }
}

/// Decompresses a frame that is said to hold a number of bytes, up to the largest page: nothing may be allocated for what so few
/// bytes cannot hold. Longer frames may hold more than the limit of one allocation.
func decompress(_ bytes: [UInt8]) {
    guard (4..<2000).contains(bytes.count), var decompressor = try? ZstdDecompressor() else { return }
    let count = (0..<4).reduce(0) { $0 | Int(bytes[$1]) << (8 * $1) } % (1 << 28)
    let frame = Array(bytes.dropFirst(4))
    if let content = try? decompressor.decompress(frame.span.bytes, expectedByteCount: count) {
        expect(content.count == count, "a frame of another length")
    }
}

/// Decodes the payload of one record of a catalog.
func readCatalogRecord(_ bytes: [UInt8]) {
    guard let kind = bytes.first else { return }
    let payload = Array(bytes.dropFirst())
    let digest = Digest(high: 1, low: 2)
    switch kind % 7 {
    case 0: _ = try? StateRecord(payload: payload)
    case 1:
        if let info = try? SegmentInfo(number: 3, payload: payload) { expect(info.payload == payload, "a segment") }
    case 2:
        if let tombstones = try? Tombstones(payload: payload) {
            expect((try? tombstones.payload()) == payload, "tombstones")
        }
    case 3: _ = try? IngestRecord(fileDigest: digest, payload: payload)
    case 4: _ = try? CurvatureRecord(digest: digest, payload: payload)
    case 5:
        if let snapshot = try? SnapshotRecord(name: "name", payload: payload) {
            expect((try? snapshot.payload()) == payload, "a snapshot")
        }
    default: _ = try? RowIdentity(payload: payload)
    }
}

/// Opens a catalog whose data file has these bytes.
func readCatalog(_ bytes: [UInt8]) {
    let folder = "/dev/shm/lorif-fuzz-\(getpid())"
    mkdir(folder, 0o700)
    unlink(folder + "/lock.mdb")
    let descriptor = open(folder + "/data.mdb", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    guard descriptor >= 0, write(descriptor, bytes, bytes.count) == bytes.count else { fail("no room in /dev/shm") }
    close(descriptor)
    _ = try? Catalog.open(at: folder).load(expecting: nil)
}
