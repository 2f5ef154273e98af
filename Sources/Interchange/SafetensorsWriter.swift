import Kernels
import Schema

/// A tensor to be written.
public struct TensorDeclaration: Hashable, Sendable {
    /// Its key in the header.
    public let name: String
    /// f32, f16 or bf16.
    public let elementType: ElementType
    /// Row-major.
    public let shape: [Int]

    /// The shape's numbers are not negative.
    public init(name: String, elementType: ElementType, shape: [Int]) {
        self.name = name
        self.elementType = elementType
        self.shape = shape
    }

    /// Numbers in the tensor.
    public var elementCount: Int { shape.reduce(1, *) }
    /// Bytes of the tensor.
    public var byteCount: Int { elementCount * elementType.byteCount }
}

/// Writes a safetensors file whose tensors are declared first and filled in any order and by pieces; never holds a tensor.
///
/// The file appears under its name when it is finished, replacing what was there. The same declarations and numbers give the same
/// bytes: tensors and metadata stay in the order given, and the header is padded so that the data start at a multiple of 8.
public struct SafetensorsWriter: ~Copyable, Sendable {
    private let file: OutputFile
    private let tensors: [TensorDeclaration]
    /// Where each tensor starts in the file.
    private let offsets: [Int]

    /// Creates the temporary file and writes the header; names must differ.
    public init(
        path: String, tensors: [TensorDeclaration], metadata: [(key: String, value: String)]
    ) throws(InterchangeError) {
        precondition(tensors.allSatisfy { [.f32, .f16, .bf16].contains($0.elementType) })
        precondition(
            Set(tensors.map(\.name)).count == tensors.count && Set(metadata.map(\.key)).count == metadata.count)
        let header = Self.header(tensors: tensors, metadata: metadata)
        guard header.count - 8 <= Limits.safetensorsHeaderBytes else {
            throw .limitExceeded(
                path: path, place: "header", quantity: "bytes (fewer or shorter ids make it smaller)",
                limit: Limits.safetensorsHeaderBytes, found: header.count - 8)
        }
        var offset = header.count
        var offsets: [Int] = []
        for tensor in tensors {
            offsets.append(offset)
            offset += tensor.byteCount
        }
        file = try OutputFile(path: path, byteCount: offset, header: header)
        self.tensors = tensors
        self.offsets = offsets
    }

    /// Fills part of a tensor, from its element `firstElement` on in row-major order, rounding to the nearest number of its type.
    /// Every element must be written exactly once; different threads may write different parts. A number that the type cannot
    /// hold is an error.
    public func write(tensor: Int, firstElement: Int, values: Span<Float>) throws(InterchangeError) {
        let declaration = tensors[tensor]
        precondition(firstElement >= 0 && values.count <= declaration.elementCount - firstElement)
        let offset = offsets[tensor] + firstElement * declaration.elementType.byteCount
        let limit: Float? =
            switch declaration.elementType {
            // Half a unit above the largest number of the type: from here on rounding gives infinity.
            case .f16: 65_520
            case .bf16: Float(bitPattern: 0x7F7F_8000)
            default: nil
            }
        if let limit, largestMagnitude(values) >= limit {
            throw .numberTooLarge(
                path: file.path, tensor: declaration.name, elementType: declaration.elementType,
                found: largestMagnitude(values))
        }
        switch declaration.elementType {
        case .f16: try file.write(narrowToFloat16(values).span.bytes, at: offset)
        case .bf16: try file.write(narrowToBFloat16(values).span.bytes, at: offset)
        default: try file.write(values.bytes, at: offset)
        }
    }

    /// Makes the file durable and gives it its name. Every element must have been written.
    public consuming func finish() throws(InterchangeError) {
        try file.finish()
    }

    /// Length and JSON, padded with spaces to a multiple of 8.
    static func header(tensors: [TensorDeclaration], metadata: [(key: String, value: String)]) -> [UInt8] {
        var members: [String] = []
        if !metadata.isEmpty {
            let strings = metadata.map { "\(JSONText.quoted($0.key)):\(JSONText.quoted($0.value))" }
            members.append("\"__metadata__\":{\(strings.joined(separator: ","))}")
        }
        var offset = 0
        for tensor in tensors {
            let shape = tensor.shape.map(String.init).joined(separator: ",")
            members.append(
                "\(JSONText.quoted(tensor.name)):{\"dtype\":\"\(tensor.elementType.rawValue)\",\"shape\":[\(shape)],"
                    + "\"data_offsets\":[\(offset),\(offset + tensor.byteCount)]}")
            offset += tensor.byteCount
        }
        var json = Array("{\(members.joined(separator: ","))}".utf8)
        while json.count % 8 != 0 { json.append(UInt8(ascii: " ")) }
        return (0..<8).map { UInt8(truncatingIfNeeded: json.count >> (8 * $0)) } + json
    }
}
