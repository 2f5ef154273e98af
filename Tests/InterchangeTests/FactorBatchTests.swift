import Interchange
import Schema
import Testing

/// The value of element k of a golden tensor: see Resources/make_golden.py.
private func golden(_ k: Int, _ seed: Int) -> Float { Float((7 * k + seed) % 23 - 11) / 8 }

struct FactorBatchTests {
    @Test func readsWhatSafetensorsWrites() throws {
        let batch = try FactorBatch(path: resources + "/golden_batch.safetensors")
        #expect(batch.rowCount == 5)
        #expect(
            batch.layers == [
                BatchLayer(name: "head", inputDimension: 2, outputDimension: 3, form: .full, elementType: .bf16),
                BatchLayer(
                    name: "blocks.10.fc", inputDimension: 3, outputDimension: 4, form: .factors(rank: 2),
                    elementType: .f32),
                BatchLayer(
                    name: "blocks.2/attn.q", inputDimension: 4, outputDimension: 2, form: .factors(rank: 3),
                    elementType: .f16),
            ])
        #expect(batch.identifiers == ["a", "naïve \"quoted\" \\ id", "日本", "tab\tid", "😀"])
        #expect(Dictionary(uniqueKeysWithValues: batch.provenance) == ["model": "test model", "projection_seed": "11"])

        for rows in [0..<5, 1..<4, 4..<5, 2..<2] {
            let head = try batch.readTile(layer: 0, rows: rows)
            #expect(head.layer.form == .dense && head.rowCount == rows.count)
            #expect(head.dense == (rows.lowerBound * 6..<rows.upperBound * 6).map { golden($0, 5) })
            for (layer, d1, d2, rank, seeds) in [(1, 3, 4, 2, (1, 2)), (2, 4, 2, 3, (3, 4))] {
                let tile = try batch.readTile(layer: layer, rows: rows)
                #expect(tile.layer.rank == rank && tile.dense.isEmpty)
                for k in 0..<rank {
                    for row in rows {
                        let i = k * rows.count + row - rows.lowerBound
                        for a in 0..<d1 {
                            #expect(tile.left[i * d1 + a] == golden((row * d1 + a) * rank + k, seeds.0))
                        }
                        for b in 0..<d2 {
                            #expect(tile.right[i * d2 + b] == golden((row * d2 + b) * rank + k, seeds.1))
                        }
                    }
                }
            }
        }
    }

    @Test func readsTheSmallestBatchAndOrdersNamesNaturally() throws {
        let batch = try FactorBatch(path: resources + "/golden_plain.safetensors")
        #expect(batch.layers.map(\.name) == ["b.9", "b.10"])
        #expect(batch.identifiers == nil && batch.provenance.isEmpty && batch.metadataPath == nil)
        #expect(try batch.readTile(layer: 0, rows: 1..<2).dense == (3..<6).map { golden($0, 7) })
        #expect(try batch.metadata(rows: 0..<2) == [nil, nil])
    }

    /// Three rows of a batch from a real model, as its trainer wrote it.
    @Test func readsARealBatch() throws {
        let batch = try FactorBatch(path: resources + "/real_c4.safetensors")
        #expect(batch.rowCount == 3 && batch.layers.count == 8)
        #expect(
            batch.layers.map(\.name)
                == ["qkv", "out", "fc", "proj"].map { "blocks.0." + $0 }
                + ["qkv", "out", "fc", "proj"].map { "blocks.1." + $0 })
        #expect(batch.layers.allSatisfy { $0.form == .factors(rank: 4) && $0.elementType == .f32 })
        #expect(batch.identifiers == ["tinylm-train-000001", "tinylm-train-000004", "tinylm-train-000008"])
        #expect(batch.provenance.contains { $0 == ("format", "G ~= left @ right.T, sqrt(sigma) in both") })
        // Printed by make_golden.py: row 2, coordinate 5, all components; and the sums.
        let left = try batch.readTile(layer: 0, rows: 2..<3).left
        let components: [Float] = [0.199385404586792, 0.09892915189266205, -0.12592485547065735, 0.1429549902677536]
        #expect((0..<4).map { left[$0 * 32 + 5] } == components)
        let sum = try batch.readTile(layer: 7, rows: 0..<3).right.reduce(0.0) { $0 + Double($1) }
        #expect(abs(sum - -0.778794872952858) < 1e-12)
    }

    @Test func theDigestIsThatOfTheBytes() throws {
        let directory = try TemporaryDirectory()
        let bytes = try contents(resources + "/golden_batch.safetensors")
        let path = try directory.write("copy.safetensors", bytes)
        let original = try FactorBatch(path: resources + "/golden_batch.safetensors").digest()
        #expect(try FactorBatch(path: path).digest() == original)
        var changed = bytes
        changed[bytes.count - 1] ^= 1
        try directory.write("copy.safetensors", changed)
        #expect(try FactorBatch(path: path).digest() != original)
    }

    @Test func refusesBrokenSecondMoments() throws {
        let full = ("a/full", "F32", [1, 4, 2])
        let (left, right) = ("a/second_moment_left", "a/second_moment_right")
        try expectRefusal(
            [full, (left, "F64", [4, 4])], ", second moments of layer \"a\": expected left and right, found one of them"
        )
        try expectRefusal(
            [full, (left, "F64", [4, 4]), (right, "F32", [3, 3])],
            ", second moments of layer \"a\": expected orders 4 and 2, found 4 and 3")
        try expectRefusal(
            [full, ("b/second_moment_left", "F64", [4, 4])],
            ", second moments of layer \"b\": expected gradients of the layer in the same file, found none")
        try expectRefusal(
            [full, (left, "F16", [4, 4]), (right, "F32", [2, 2])],
            ", tensor \"\(left)\": expected F32 or F64, found F16")
        try expectRefusal(
            [full, (left, "F64", [4, 2]), (right, "F32", [2, 2])],
            ", tensor \"\(left)\": expected shape [d, d], found [4, 2]")
    }

    @Test func refusesBrokenLayers() throws {
        try expectRefusal([], ": expected tensors <layer>/left and <layer>/right, or <layer>/full, found no tensor")
        for name in ["left", "/full", "a/", "a/Left", "a.full", "a/full/"] {
            try expectRefusal(
                [(name, "F32", [1, 1, 1])],
                ", tensor \"\(name)\": expected a name <layer>/left, <layer>/right or <layer>/full")
        }
        try expectRefusal(
            [("a/left", "F32", [1, 2, 1])], ", layer \"a\": expected both factors, found left without right")
        try expectRefusal(
            [("a/b/right", "F32", [1, 2, 1])], ", layer \"a/b\": expected both factors, found right without left")
        try expectRefusal(
            [("a/full", "F32", [1, 2, 1]), ("a/left", "F32", [1, 2, 1])],
            ", layer \"a\": expected either factors or full, found both")
        try expectRefusal(
            [("a/left", "F32", [1, 2, 1]), ("a/right", "F32", [1, 2, 3])],
            ", layer \"a\": expected one rank, found 1 in left and 3 in right")
        try expectRefusal(
            [("a/left", "F32", [1, 2, 1]), ("a/right", "F16", [1, 2, 1])],
            ", layer \"a\": expected one dtype, found F32 in left and F16 in right")
        try expectRefusal([("a/full", "F64", [1, 1, 1])], ", tensor \"a/full\": expected F32, F16 or BF16, found F64")
        try expectRefusal(
            [("a/full", "F32", [4, 2])], ", tensor \"a/full\": expected shape [n, d1, d2], found [4, 2]")
        try expectRefusal(
            [("a/left", "F32", [4, 2])], ", tensor \"a/left\": expected shape [n, d, c], found [4, 2]")
        try expectRefusal(
            [("a/left", "F32", [4, 2, 0]), ("a/right", "F32", [4, 2, 0])],
            ", tensor \"a/left\": expected shape [n, d, c] without zeros, found [4, 2, 0]")
        try expectRefusal(
            [("a/full", "F32", [0, 2, 3])], ", tensor \"a/full\": expected at least one row, found none")
        try expectRefusal(
            [("a/full", "F32", [2, 1, 1]), ("b/full", "F32", [3, 1, 1])],
            ", tensor \"b/full\": expected 2 rows as in \"a/full\", found 3")
    }

    @Test func refusesWhatIsBeyondTheLimits() throws {
        let long = String(repeating: "x", count: 1025)
        try expectRefusal(
            [("\(long)/full", "F32", [1, 1, 1])],
            ", tensor \"\(String(repeating: "x", count: 100))…\": expected at most 1024 bytes of the layer's name, found 1025"
        )
        try expectRefusal(
            [("a/full", "F16", [1, 1_048_577, 1])],
            ", tensor \"a/full\": expected at most 1048576 as dimension, found 1048577")
        try expectRefusal(
            [("a/full", "F16", [1, 1, 1_048_577])],
            ", tensor \"a/full\": expected at most 1048576 as dimension, found 1048577")
        try expectRefusal(
            [("a/left", "F16", [1, 1, 4097]), ("a/right", "F16", [1, 1, 4097])],
            ", tensor \"a/left\": expected at most 4096 as rank, found 4097")
        try expectRefusal(
            [("a/left", "F16", [1, 1 << 15, 1]), ("a/right", "F16", [1, 1 << 14, 1])],
            ", layer \"a\": expected at most 268435456 as d1 · d2, found 536870912")
        let many = (0...Limits.layerCount).map { ("\($0)/full", "F16", [1, 1, 1]) }
        try expectRefusal(many, ", header: expected at most 65536 layers, found 65537")
    }

    @Test func refusesBrokenMetadata() throws {
        let two: [(String, String, [Int])] = [("a/full", "F32", [2, 1, 1]), ("b/full", "F32", [2, 1, 1])]
        func expect(_ metadata: String, _ text: String, _ location: SourceLocation = #_sourceLocation) throws {
            try expectRefusal(two, metadata: metadata, text, sourceLocation: location)
        }
        try expect(
            #""lorif.batch":"2""#, ", __metadata__ \"lorif.batch\": expected version \"1\", found \"2\"")
        try expect(
            #""ids":"a, b""#,
            ", __metadata__ \"ids\", byte 0 of its text: expected an array, found 'a' (it must be a JSON array of strings)"
        )
        try expect(
            #""ids":"[\"a\", 2]""#,
            ", __metadata__ \"ids\", byte 6 of its text: expected a string, found '2' (it must be a JSON array of strings)"
        )
        try expect(
            #""layers":"{}""#,
            ", __metadata__ \"layers\", byte 0 of its text: expected an array, found '{' (it must be a JSON array of "
                + "strings)")
        try expect(#""ids":"[\"a\"]""#, ", __metadata__ \"ids\": expected 2 ids, one per row, found 1")
        try expect(
            #""ids":"[\"a\", \"a\"]""#,
            ", __metadata__ \"ids\": expected distinct ids, found \"a\" at rows 0 and 1")
        try expect(
            #""ids":"[\"a\", \"\"]""#,
            ", __metadata__ \"ids\", row 1: expected an id of at least one character, found \"\"")
        try expect(
            "\"ids\":\"[\\\"\(String(repeating: "y", count: 4097))\\\", \\\"a\\\"]\"",
            ", __metadata__ \"ids\", row 0: expected at most 4096 bytes of an id, found 4097")
        try expect(
            #""layers":"[\"a\", \"b\", \"c\"]""#,
            ", __metadata__ \"layers\": expected layers that have tensors, found \"c\" without any")
        try expect(
            #""layers":"[\"a\"]""#, ", __metadata__ \"layers\": expected every layer of the file, found no \"b\"")
        try expect(
            #""layers":"[\"a\", \"b\", \"a\"]""#,
            ", __metadata__ \"layers\": expected distinct names, found \"a\" at places 0 and 2")
    }

    /// Composed and decomposed letters are different ids, although Swift's strings compare equal.
    @Test func idsAreComparedByTheirBytes() throws {
        let directory = try TemporaryDirectory()
        let (text, count) = header([("a/full", "F32", [2, 1, 1])], metadata: #""ids":"[\"\\u00e9\", \"e\\u0301\"]""#)
        let path = try directory.write("a.safetensors", safetensors(text, dataByteCount: count))
        try directory.write("a.jsonl", text: "{\"id\": \"e\u{301}\", \"x\": 1}")
        let batch = try FactorBatch(path: path)
        #expect(batch.identifiers?.map { $0.utf8.count } == [2, 3])
        #expect(try batch.metadata(rows: 0..<2) == [nil, MetadataRecord(fields: [("x", .integer(1))])])
    }

    @Test func refusesNumbersThatAreNotFinite() throws {
        let (text, _) = header(
            [("b.1/left", "F32", [3, 2, 2]), ("b.1/right", "F32", [3, 1, 2])],
            metadata: #""ids":"[\"x\", \"y\", \"z\"]""#)
        var values = [Float](repeating: 1, count: 18)
        values[7] = .nan
        try expectRefusal(
            text, data: floatBytes(values),
            ", tensor \"b.1/left\", row 1 (id \"y\"), element [1, 1, 1]: expected a finite number, found NaN")
        values[7] = 1
        values[16] = -.infinity
        try expectRefusal(
            text, data: floatBytes(values),
            ", tensor \"b.1/right\", row 2 (id \"z\"), element [2, 0, 0]: expected a finite number, found -infinity")

        for (dtype, infinity) in [("F16", [0x00, 0x7C] as [UInt8]), ("BF16", [0x80, 0x7F])] {
            let (text, _) = header([("a/full", dtype, [2, 1, 1])])
            try expectRefusal(
                text, data: [0, 0] + infinity,
                ", tensor \"a/full\", row 1, element [1, 0, 0]: expected a finite number, found infinity")
        }
    }

    /// A row with NaN is found when it is read, and named by its number in the file.
    @Test func readsOnlyTheRowsThatAreAskedFor() throws {
        let directory = try TemporaryDirectory()
        let (text, _) = header([("a/full", "F32", [4, 1, 2])])
        let bytes = safetensors(text, data: floatBytes([0, 1, 2, 3, 4, .nan, 6, 7]))
        let batch = try FactorBatch(path: try directory.write("a.safetensors", bytes))
        #expect(try batch.readTile(layer: 0, rows: 0..<2).dense == [0, 1, 2, 3])
        #expect(try batch.readTile(layer: 0, rows: 3..<4).dense == [6, 7])
        let error = #expect(throws: InterchangeError.self) { try batch.readTile(layer: 0, rows: 1..<4) }
        guard case .notFinite(_, "a/full", 2, nil, [2, 0, 1], "NaN")? = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }
}
