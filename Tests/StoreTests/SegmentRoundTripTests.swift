import Checksum
import Format
import Kernels
import Schema
import Store
import Testing

struct SegmentRoundTripTests {
    let directory: ScratchDirectory

    init() throws { directory = try ScratchDirectory() }

    /// What is read is what the page's bytes mean by Formats/page.md, and close to what was given.
    @Test(arguments: Encoding.allCases)
    func tilesAgreeWithThePageDescription(encoding: Encoding) throws {
        let schema = mixedSchema(encoding)
        let block = randomBlock(schema, rows: 0..<45, seed: 7)
        let (path, identity) = try writeSegment(schema, [block], in: directory, provenance: "{\"x\":1}")
        let reader = try SegmentReader(path: path, expecting: identity)
        #expect(reader.schema == schema && reader.rowCount == 45 && reader.blockCount == 1)
        #expect(reader.provenance == "{\"x\":1}")
        #expect(try reader.readIdentifiers(block: 0) == block.identifiers)
        #expect(try reader.readMetadata(block: 0) == [MetadataRecord?](repeating: nil, count: 45))
        try reader.verify()
        for (index, layer) in schema.layers.enumerated() {
            let tile = try reader.readTile(block: 0, layer: index)
            #expect(tile.layer == layer)
            if let rank = layer.rank {
                for component in 0..<rank {
                    let left = try reader.readPayload(.left, block: 0, layer: index, component: component)
                    let right = try reader.readPayload(.right, block: 0, layer: index, component: component)
                    compare(left, tile.left, component, layer.inputDimension, encoding)
                    compare(right, tile.right, component, layer.outputDimension, encoding)
                }
            } else {
                compare(
                    try reader.readPayload(.dense, block: 0, layer: index), tile.dense, 0, layer.gradientLength,
                    encoding)
            }
        }
    }

    private func compare(_ payload: [UInt8], _ values: [Float], _ component: Int, _ length: Int, _ encoding: Encoding) {
        let oracle = PageOracle(bytes: payload, rowCount: 45, length: length, encoding: encoding)
        #expect(payload.count == oracle.expectedByteCount)
        for row in 0..<45 {
            for coordinate in 0..<length {
                let expected = oracle.value(row: row, coordinate: coordinate)
                let found = Double(values[(component * 45 + row) * length + coordinate])
                #expect(abs(found - expected) <= 0x1p-23 * abs(expected), "row \(row), coordinate \(coordinate)")
            }
        }
    }

    /// Stored gradients lie near the given ones, and the norm columns bound both from above, tightly.
    @Test(arguments: Encoding.allCases)
    func normsAreTightBounds(encoding: Encoding) throws {
        let schema = mixedSchema(encoding)
        let block = randomBlock(schema, rows: 0..<45, seed: 11)
        let (path, _) = try writeSegment(schema, [block], in: directory)
        let reader = try SegmentReader(path: path)
        let norms = try reader.readNorms(block: 0)
        let residuals = try reader.readResidualNorms(block: 0)
        let worstLoss: [Encoding: Double] = [
            .f32: 0, .bf16: 0.02, .f16: 0.003, .int8: 0.03, .q4: 0.5, .q3: 0.8, .q2: 1.2, .q1: 1.6,
        ]
        for layer in schema.layers.indices {
            let tile = try reader.readTile(block: 0, layer: layer)
            for row in 0..<45 {
                let given = block.tiles[layer].gradient(row: row)
                let stored = tile.gradient(row: row)
                let size = norm(stored)
                let loss = norm(zip(given, stored).map { $0 - $1 })
                #expect(loss <= (worstLoss[encoding] ?? 0) * norm(given))
                #expect(Double(norms[layer][row]) >= size * (1 - 1e-14))
                #expect(Double(norms[layer][row]) <= size * 1.0079 + 1e-30)
                #expect(Double(residuals[layer][row]) >= loss * (1 - 1e-9))
                #expect(Double(residuals[layer][row]) <= loss * 1.0079 + size * 1e-7)
            }
        }
        if encoding == .f32 { #expect(residuals == [[Float]](repeating: .init(repeating: 0, count: 45), count: 3)) }
    }

    @Test func exactEncodingsGiveBackTheNumbers() throws {
        let schema = mixedSchema(.f32)
        let block = randomBlock(schema, rows: 0..<33, seed: 3)
        let (path, _) = try writeSegment(schema, [block], in: directory)
        let reader = try SegmentReader(path: path)
        for layer in schema.layers.indices {
            let tile = try reader.readTile(block: 0, layer: layer)
            #expect(tile.left == block.tiles[layer].left && tile.right == block.tiles[layer].right)
            #expect(tile.dense == block.tiles[layer].dense)
        }
    }

    /// What was lost before the store comes on top of what the encoding loses.
    @Test func residualNormsAddUp() throws {
        let schema = mixedSchema(.f32)
        var block = randomBlock(schema, rows: 0..<3, seed: 5)
        block.residualNorms = [[0.5, 0, 2], [1, 1, 1], [0, 0, 0.3]]
        let (path, _) = try writeSegment(schema, [block], in: directory)
        let residuals = try SegmentReader(path: path).readResidualNorms(block: 0)
        for (layer, norms) in (block.residualNorms ?? []).enumerated() {
            for (row, norm) in norms.enumerated() {
                #expect(residuals[layer][row] >= norm && residuals[layer][row] <= norm * 1.008)
            }
        }
    }

    @Test func lowBitComponentsAreSortedAndOthersAreNot() throws {
        let layer = LayerSchema(name: "l", inputDimension: 2, outputDimension: 2, form: .factors(rank: 3))
        // Row 0: sizes 1, 9, 4 by component; row 1: 4, 4, 1 (a tie keeps its order).
        let tile = LayerTile(
            layer: layer, rowCount: 2, left: [1, 1, 2, 2, 3, 3, -2, -2, 2, 2, 1, 1],
            right: [1, 1, 2, 2, 3, 3, 2, 2, 2, 2, 1, 1])
        let block = RowBlock(identifiers: ["a", "b"], tiles: [tile])
        func signsAndOrder(_ encoding: Encoding) throws -> [[Double]] {
            let (path, _) = try writeSegment(StoreSchema(layers: [layer], encoding: encoding), [block], in: directory)
            let read = try SegmentReader(path: path).readTile(block: 0, layer: 0)
            return (0..<2).map { row in (0..<3).map { Double(read.left[($0 * 2 + row) * 2]).rounded() } }
        }
        #expect(try signsAndOrder(.int8) == [[1, 3, 2], [2, -2, 1]])
        #expect(try signsAndOrder(.q4) == [[3, 2, 1], [2, -2, 1]])
    }

    @Test func leadingComponentsAndSingleRows() throws {
        let schema = mixedSchema(.q2)
        let metadata: [MetadataRecord?] = (0..<40).map {
            $0 % 3 == 0 ? nil : MetadataRecord(fields: [("n", .integer(Int64($0)))])
        }
        let block = randomBlock(schema, rows: 0..<40, seed: 9, metadata: metadata)
        let (path, _) = try writeSegment(schema, [block], in: directory)
        let reader = try SegmentReader(path: path)
        let whole = try reader.readTile(block: 0, layer: 2)
        let leading = try reader.readTile(block: 0, layer: 2, componentCount: 2)
        #expect(leading.layer.rank == 2 && leading.left == Array(whole.left[..<(2 * 40 * 7)]))
        let row = try reader.readRow(38)
        #expect(row.identifier == "example-38" && row.metadata == metadata[38])
        for layer in schema.layers.indices {
            let tile = try reader.readTile(block: 0, layer: layer)
            #expect(row.tiles[layer].gradient(row: 0) == tile.gradient(row: 38))
            #expect(row.norms[layer] == (try reader.readNorms(block: 0))[layer][38])
            #expect(row.residualNorms[layer] == (try reader.readResidualNorms(block: 0))[layer][38])
        }
    }

    @Test func vectorPageSizesAgreeWithKernels() {
        for encoding in Encoding.allCases {
            for rowCount in [1, 31, 32, 33, 8192] {
                for length in [1, 2, 3, 5, 64, 1000] {
                    #expect(
                        VectorPage.byteCount(rowCount: rowCount, length: length, encoding: encoding)
                            == vectorPayloadByteCount(rowCount: rowCount, length: length, encoding: encoding))
                }
            }
        }
    }

    @Test func theSameBlocksGiveTheSameBytes() throws {
        for encoding in [Encoding.f16, .q3] {
            let schema = mixedSchema(encoding)
            let block = randomBlock(schema, rows: 0..<300, seed: 1)
            let first = try writeSegment(schema, [block], in: directory)
            let second = try writeSegment(schema, [block], in: directory)
            #expect(first.identity == second.identity)
            #expect(try bytes(at: first.path) == bytes(at: second.path))
        }
    }

    @Test func summariesCountEveryPageByte() throws {
        let schema = mixedSchema(.bf16)
        let block = randomBlock(
            schema, rows: 0..<2000, seed: 2,
            metadata: (0..<2000).map { _ in MetadataRecord(fields: [("t", .string("x"))]) })
        let (path, _) = try writeSegment(schema, [block], in: directory)
        let summaries = try SegmentReader(path: path).columnSummaries
        #expect(summaries.map(\.kind) == SegmentColumnKind.allCases)
        #expect(summaries[0].pageCount == 4 && summaries[0].rawByteCount == 2 * 2000 * (5 + 3 * 7))
        // What exponents save is less than a third, and vectors stay usable in place; repeated text is compressed.
        #expect(summaries[0].storedByteCount == summaries[0].rawByteCount)
        #expect(summaries[7].fieldName == "t" && summaries[7].storedByteCount * 3 < 2 * summaries[7].rawByteCount)
    }
}
