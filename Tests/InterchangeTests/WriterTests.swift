import Foundation
import Interchange
import Schema
import Testing

struct WriterTests {
    private func text(_ error: InterchangeError?, in directory: TemporaryDirectory) -> String? {
        error?.description.replacingOccurrences(of: directory.path + "/", with: "")
    }

    /// The matrix of Resources/make_golden.py, written as rows, and as columns last first.
    private func writeGolden(_ path: String, metadata: [String: String] = [:]) throws {
        let writer = try ScoreMatrixWriter(path: path, queryCount: 3, exampleCount: 5, metadata: metadata)
        let scores = (0..<15).map { Float((7 * $0 + 8) % 23 - 11) / 8 }
        for query in 0..<2 {
            try writer.write(query: query, firstExample: 0, scores: scores.span.extracting(query * 5..<query * 5 + 5))
        }
        try writer.write(query: 2, firstExample: 3, scores: scores.span.extracting(13..<15))
        try writer.write(query: 2, firstExample: 0, scores: scores.span.extracting(10..<13))
        try writer.finish()
    }

    @Test func numpyFilesAreNumpys() throws {
        let directory = try TemporaryDirectory()
        try writeGolden(directory.path + "/scores.npy")
        #expect(try contents(directory.path + "/scores.npy") == contents(resources + "/golden_scores.npy"))
        #expect(try directory.names() == ["scores.npy"])
    }

    @Test func scoreFilesHoldWhatSafetensorsWouldWrite() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/scores.safetensors"
        let metadata = ["query_ids": JSONText.array(["q0", "q1", "q\"2"]), "method": "dot"]
        try writeGolden(path, metadata: metadata)
        let golden = try SafetensorsFile(path: resources + "/golden_scores.safetensors")
        let file = try SafetensorsFile(path: path)
        #expect(file.tensors[0].name == "scores" && file.tensors[0].shape == [3, 5])
        #expect(file.tensors[0].elementType == .f32 && file.tensors[0].byteRange.lowerBound % 8 == 0)
        #expect(file.metadata.map(\.key) == ["method", "query_ids"])
        #expect(
            Dictionary(uniqueKeysWithValues: file.metadata.map { ($0.key, $0.value) })
                == Dictionary(uniqueKeysWithValues: golden.metadata.map { ($0.key, $0.value) }))
        #expect(try contents(path).suffix(60) == contents(resources + "/golden_scores.safetensors").suffix(60))
    }

    @Test func theBytesOfAScoreFileAreFixed() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/s.safetensors"
        let writer = try ScoreMatrixWriter(
            path: path, queryCount: 1, exampleCount: 2, metadata: ["b": "1", "a": "é\n"])
        let scores: [Float] = [1, -2]
        try writer.write(query: 0, firstExample: 0, scores: scores.span)
        try writer.finish()
        let header =
            #"{"__metadata__":{"a":"é\n","b":"1"},"scores":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#
        #expect(
            try contents(path)
                == safetensors(
                    header + String(repeating: " ", count: 7 - (header.utf8.count + 7) % 8), data: floatBytes(scores)))
    }

    @Test func anUnfinishedFileLeavesNothingAndAFinishedOneReplaces() throws {
        let directory = try TemporaryDirectory()
        let path = try directory.write("scores.npy", text: "what was there")
        do {
            let writer = try ScoreMatrixWriter(path: path, queryCount: 2, exampleCount: 2, metadata: [:])
            let scores: [Float] = [1, 2]
            try writer.write(query: 1, firstExample: 0, scores: scores.span)
            #expect(try directory.names().count == 2)
        }
        #expect(try directory.names() == ["scores.npy"])
        #expect(try contents(path) == Array("what was there".utf8))
        try writeGolden(path)
        #expect(try contents(path) == contents(resources + "/golden_scores.npy"))
        #expect(try directory.names() == ["scores.npy"])
    }

    @Test func refusesPlacesThatCannotBeWritten() throws {
        let directory = try TemporaryDirectory()
        func refusal(_ name: String) -> String? {
            let error = #expect(throws: InterchangeError.self) {
                let path = directory.path + "/" + name
                _ = try ScoreMatrixWriter(path: path, queryCount: 1, exampleCount: 1, metadata: [:])
            }
            return error?.description.replacingOccurrences(of: directory.path, with: "DIR")
        }
        #expect(
            refusal("a/s.npy")
                == "DIR/a/s.npy cannot be written: there is no folder DIR/a; make it with 'mkdir -p DIR/a'")
        #expect(refusal("s.csv") == "DIR/s.csv: expected a name that ends in .safetensors or .npy")
        try FileManager.default.createDirectory(atPath: directory.path + "/s.npy", withIntermediateDirectories: false)
        #expect(refusal("s.npy") == "DIR/s.npy cannot be written: it is a directory")
        #expect(try directory.names() == ["s.npy"])
    }

    @Test func threadsMayWriteDifferentParts() throws {
        let directory = try TemporaryDirectory()
        let path = directory.path + "/scores.npy"
        let writer = try ScoreMatrixWriter(path: path, queryCount: 64, exampleCount: 100, metadata: [:])
        DispatchQueue.concurrentPerform(iterations: 128) { part in
            let query = part / 2
            let first = part % 2 * 50
            let scores = (first..<first + 50).map { Float(query * 100 + $0) }
            #expect(throws: Never.self) { try writer.write(query: query, firstExample: first, scores: scores.span) }
        }
        try writer.finish()
        #expect(try contents(path).suffix(25_600) == floatBytes((0..<6400).map { Float($0) })[...])
    }

    @Test(arguments: [ElementType.f32, .f16, .bf16])
    func batchesRoundTrip(elementType: ElementType) throws {
        let source = try FactorBatch(path: resources + "/golden_batch.safetensors")
        let directory = try TemporaryDirectory()
        func write(_ name: String) throws -> String {
            let path = directory.path + "/" + name
            let writer = try FactorBatchWriter(
                path: path, layers: source.layers.map(\.schema), elementType: elementType, rowCount: 5,
                identifiers: source.identifiers, provenance: [("model", "m \"1\"")])
            for rows in [3..<5, 0..<3] {
                for layer in source.layers.indices {
                    let tile = try source.readTile(layer: layer, rows: rows)
                    try writer.write(tile, layer: layer, firstRow: rows.lowerBound)
                }
            }
            try writer.finish()
            return path
        }
        let path = try write("copy.safetensors")
        let copy = try FactorBatch(path: path)
        #expect(copy.layers.map(\.schema) == source.layers.map(\.schema))
        #expect(copy.layers.allSatisfy { $0.elementType == elementType })
        #expect(copy.identifiers == source.identifiers)
        #expect(copy.provenance.map(\.0) == ["model"] && copy.provenance.map(\.1) == ["m \"1\""])
        for layer in source.layers.indices {
            let (a, b) = try (source.readTile(layer: layer, rows: 0..<5), copy.readTile(layer: layer, rows: 0..<5))
            #expect(a.left == b.left && a.right == b.right && a.dense == b.dense)
        }
        #expect(try contents(write("again.safetensors")) == contents(path))
    }

    @Test func numbersThatDoNotFitAreRefused() throws {
        let directory = try TemporaryDirectory()
        let tensors = [
            TensorDeclaration(name: "half", elementType: .f16, shape: [2]),
            TensorDeclaration(name: "brain", elementType: .bf16, shape: [2]),
        ]
        let writer = try SafetensorsWriter(path: directory.path + "/a.safetensors", tensors: tensors, metadata: [])
        let fits: [[Float]] = [[65_519.99, -65_519.99], [3.39e38, -3.39e38]]
        let tooLarge: [[Float]] = [[0, -65_520], [.greatestFiniteMagnitude, 0]]
        for tensor in 0..<2 {
            let values = tooLarge[tensor]
            let error = #expect(throws: InterchangeError.self) {
                try writer.write(tensor: tensor, firstElement: 0, values: values.span)
            }
            let type = tensor == 0 ? "F16" : "BF16"
            #expect(
                text(error, in: directory)?.hasPrefix(
                    "a.safetensors, tensor \"\(tensors[tensor].name)\": expected numbers that \(type) can hold, found ")
                    == true)
            let largest = fits[tensor]
            try writer.write(tensor: tensor, firstElement: 0, values: largest.span)
        }
        try writer.finish()
        let bytes = try contents(directory.path + "/a.safetensors").suffix(8)
        #expect(Array(bytes) == [0xFF, 0x7B, 0xFF, 0xFB, 0x7F, 0x7F, 0x7F, 0xFF])
    }
}
