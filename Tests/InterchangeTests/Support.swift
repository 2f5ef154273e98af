import Files
import Foundation
import Interchange
import Testing

/// A directory that lives as long as the value.
final class TemporaryDirectory {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "lorif-interchange-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
    }

    /// Writes a file; its path.
    @discardableResult
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = path + "/" + name
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        return file
    }

    @discardableResult
    func write(_ name: String, text: String) throws -> String {
        try write(name, Array(text.utf8))
    }

    func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path).sorted()
    }
}

/// The files beside the tests.
let resources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("Resources").path

func contents(_ path: String) throws -> [UInt8] {
    Array(try Data(contentsOf: URL(fileURLWithPath: path)))
}

/// A safetensors file put together by hand: length, header text, data.
func safetensors(_ header: String, dataByteCount: Int) -> [UInt8] {
    safetensors(header, data: [UInt8](repeating: 0, count: dataByteCount))
}

func safetensors(_ header: String, data: [UInt8]) -> [UInt8] {
    let text = Array(header.utf8)
    return (0..<8).map { UInt8(truncatingIfNeeded: text.count >> (8 * $0)) } + text + data
}

/// Little-endian f32.
func floatBytes(_ values: [Float]) -> [UInt8] {
    values.flatMap { value in (0..<4).map { UInt8(truncatingIfNeeded: value.bitPattern >> (8 * UInt32($0))) } }
}

/// A header of tensors laid end to end, in the order given, with metadata values that are JSON already escaped.
func header(_ tensors: [(name: String, dtype: String, shape: [Int])], metadata: String? = nil) -> (String, Int) {
    let sizes = ["F64": 8, "F32": 4, "F16": 2, "BF16": 2]
    var offset = 0
    var members: [String] = metadata.map { ["\"__metadata__\":{\($0)}"] } ?? []
    for tensor in tensors {
        let count = tensor.shape.reduce(sizes[tensor.dtype] ?? 1, *)
        members.append(
            "\"\(tensor.name)\":{\"dtype\":\"\(tensor.dtype)\",\"shape\":\(tensor.shape),"
                + "\"data_offsets\":[\(offset),\(offset + count)]}")
        offset += count
    }
    return ("{" + members.joined(separator: ",") + "}", offset)
}

/// The error that opening a batch with these bytes gives, with the directory taken out of its text.
func refusal(of bytes: [UInt8], in directory: TemporaryDirectory) throws -> (InterchangeError, String)? {
    let path = try directory.write("batch.safetensors", bytes)
    do throws(InterchangeError) {
        let batch = try FactorBatch(path: path)
        for layer in batch.layers.indices { _ = try batch.readTile(layer: layer, rows: 0..<batch.rowCount) }
        return nil
    } catch {
        return (error, error.description.replacingOccurrences(of: directory.path + "/", with: ""))
    }
}

/// Expects the refusal of a batch, and its text.
func expectRefusal(
    _ header: String, data: [UInt8], _ text: String, sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let directory = try TemporaryDirectory()
    let found = try refusal(of: safetensors(header, data: data), in: directory)
    #expect(found?.1 == "batch.safetensors" + text, sourceLocation: sourceLocation)
}

func expectRefusal(
    _ tensors: [(name: String, dtype: String, shape: [Int])], metadata: String? = nil, _ text: String,
    sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let (text0, count) = header(tensors, metadata: metadata)
    try expectRefusal(text0, data: [UInt8](repeating: 0, count: count), text, sourceLocation: sourceLocation)
}
