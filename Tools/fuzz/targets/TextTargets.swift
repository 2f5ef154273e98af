@testable import Engine
@testable import Interchange
import Schema

/// Opens a batch of gradients and reads all of it.
func readBatch(_ path: String) {
    guard let batch = try? FactorBatch(path: path) else { return }
    for layer in batch.layers.indices {
        // What a hostile header promises is not read at once.
        for row in 0..<min(3, batch.rowCount) { _ = try? batch.readTile(layer: layer, rows: row..<row + 1) }
        if batch.hasSecondMoments(layer: layer), batch.byteCount < 1 << 20 {
            _ = try? batch.readSecondMoments(layer: layer)
        }
    }
    _ = try? batch.digest()
}

/// Reads user metadata for five rows, with ids and without.
func readMetadata(_ path: String) {
    let index = try? IdentifierIndex(["row-0", "row-1", "row-2", "3", "ü"])
    for index in [index, nil] {
        guard let file = try? MetadataFile(path: path, rowCount: 5, index: index) else { continue }
        _ = try? file.records(rows: 0..<5)
    }
}

/// Reads a metadata object and a list of strings; what is written of them is read as the same.
func readJSON(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let record = try? JSONText.record(text) {
        let written = JSONText.object(record)
        guard let again = try? JSONText.record(written), JSONText.object(again) == written else {
            fail("an object is not what was written of it")
        }
    }
    if let strings = try? JSONText.strings(text), (try? JSONText.strings(JSONText.array(strings))) != strings {
        fail("strings are not what was written of them")
    }
}

/// Parses a condition on metadata and tries it on a row.
func readFilter(_ bytes: [UInt8]) {
    guard let filter = try? RowFilter(parsing: String(decoding: bytes, as: UTF8.self)) else { return }
    let row = MetadataRecord(fields: [
        ("source", .string("genesis")), ("number", .integer(7)), ("share", .number(0.5)), ("good", .boolean(true)),
        ("none", .null), ("list", .json("[1]")),
    ])
    _ = filter.passes(identifier: "row-1", metadata: row)
    _ = filter.passes(identifier: "", metadata: nil)
}
