import Glibc
import Schema
import Store

/// Flips a bit of a byte of a file.
func flipBit(ofFile path: String, at offset: Int) {
    let descriptor = open(path, O_RDWR)
    defer { close(descriptor) }
    var byte: UInt8 = 0
    precondition(pread(descriptor, &byte, 1, off_t(offset)) == 1)
    byte ^= 0x10
    precondition(pwrite(descriptor, &byte, 1, off_t(offset)) == 1)
}

/// A small schema with both forms of layers.
let fixtureSchema = StoreSchema(
    layers: [
        LayerSchema(name: "a", inputDimension: 3, outputDimension: 2, form: .factors(rank: 2)),
        LayerSchema(name: "b", inputDimension: 2, outputDimension: 1, form: .dense),
    ], encoding: .f32)

/// The number that belongs at a place of a row: exact in f32, different everywhere.
func fixtureNumber(row: Int, layer: Int, place: Int) -> Float {
    Float(row % 65536) + Float(layer * 64 + place + 1) / 256
}

/// Rows `rows` of an endless made-up data set; ids are `prefix` and the row.
func fixtureBlock(_ rows: Range<Int>, prefix: String = "id-", metadata: Bool = false) -> RowBlock {
    let (factors, dense) = (fixtureSchema.layers[0], fixtureSchema.layers[1])
    var (left, right, full): ([Float], [Float], [Float]) = ([], [], [])
    for component in 0..<2 {
        for row in rows {
            left += (0..<3).map { fixtureNumber(row: row, layer: 0, place: 16 * component + $0) }
            right += (0..<2).map { fixtureNumber(row: row, layer: 0, place: 16 * component + 8 + $0) }
        }
    }
    for row in rows { full += (0..<2).map { fixtureNumber(row: row, layer: 1, place: $0) } }
    return RowBlock(
        identifiers: rows.map { "\(prefix)\($0)" },
        tiles: [
            LayerTile(layer: factors, rowCount: rows.count, left: left, right: right),
            LayerTile(layer: dense, rowCount: rows.count, dense: full),
        ],
        metadata: metadata ? rows.map { MetadataRecord(fields: [("row", .integer(Int64($0)))]) } : [])
}

/// Whether live rows of a snapshot, in order, are these rows of the data set, compared number by number.
func fixtureRows(in snapshot: Snapshot) throws -> [(identifier: String, isRight: Bool)] {
    var found: [(String, Bool)] = []
    for index in snapshot.segments.indices {
        let reader = try snapshot.segmentReader(index)
        for block in 0..<reader.blockCount {
            let rows = reader.rows(ofBlock: block)
            let mask = snapshot.liveMask(segment: index, rows: rows)
            let identifiers = try reader.readIdentifiers(block: block)
            let factors = try reader.readTile(block: block, layer: 0)
            let dense = try reader.readTile(block: block, layer: 1)
            for place in 0..<rows.count where mask?[place] ?? true {
                let digits = identifiers[place].split(separator: "-").last ?? ""
                let row = Int(digits) ?? -1
                var isRight = true
                for component in 0..<2 {
                    let base = component * rows.count + place
                    for a in 0..<3 {
                        let expected = fixtureNumber(row: row, layer: 0, place: 16 * component + a)
                        isRight = isRight && factors.left[base * 3 + a] == expected
                    }
                    for b in 0..<2 {
                        let expected = fixtureNumber(row: row, layer: 0, place: 16 * component + 8 + b)
                        isRight = isRight && factors.right[base * 2 + b] == expected
                    }
                }
                for a in 0..<2 {
                    isRight = isRight && dense.dense[place * 2 + a] == fixtureNumber(row: row, layer: 1, place: a)
                }
                found.append((identifiers[place], isRight))
            }
        }
    }
    return found
}
