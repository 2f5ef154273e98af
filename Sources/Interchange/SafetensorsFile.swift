public import Files
import Schema

/// One tensor of a safetensors file, as its header declares it.
public struct TensorEntry: Hashable, Sendable {
    /// Its key in the header.
    public let name: String
    /// `dtype`.
    public let elementType: ElementType
    /// Row-major; empty for a scalar.
    public let shape: [Int]
    /// Its bytes, counted from the start of the file.
    public let byteRange: Range<Int>
}

/// A safetensors file whose header has been read and checked; the numbers stay on disk.
///
/// The file is not trusted. The value exists only if: the header is at most `Limits.safetensorsHeaderBytes` long and lies in the
/// file; it is JSON with distinct keys; metadata are strings; every tensor has a known type, and its shape needs exactly the bytes
/// that it claims; and the tensors cover the data without overlap, hole or rest.
/// Format: https://github.com/huggingface/safetensors#format.
public struct SafetensorsFile: Sendable {
    /// The open file.
    public let file: ReadableFile
    /// The tensors, in the order of their bytes.
    public let tensors: [TensorEntry]
    /// The strings under `__metadata__`, in the order of the file.
    public let metadata: [(key: String, value: String)]

    /// Opens the file and checks its header; reads nothing else. Linear in the header's length.
    public init(path: String) throws(InterchangeError) {
        file = try withInterchangeErrors { try ReadableFile(path: path) }
        let header = try SafetensorsFile.readHeader(of: file)
        var parser = SafetensorsHeaderParser(
            path: path, header: header, dataStart: 8 + header.count, fileByteCount: file.byteCount)
        try parser.parse()
        tensors = try parser.orderedTensors()
        metadata = parser.metadata
    }

    /// The string under that metadata key.
    public func metadataValue(_ key: String) -> String? {
        metadata.first { $0.key == key }?.value
    }

    private static func readHeader(of file: ReadableFile) throws(InterchangeError) -> [UInt8] {
        let path = file.path
        guard file.byteCount >= 8 else { throw .fileTooShort(path: path, byteCount: file.byteCount) }
        return try withInterchangeErrors {
            let prefix = try file.read(at: 0, count: 8)
            let length = prefix.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            // The limit first: it is what makes the conversion to Int and the allocation safe.
            guard length <= UInt64(Limits.safetensorsHeaderBytes) else {
                throw InterchangeError.headerTooLong(path: path, byteCount: length)
            }
            guard Int(length) <= file.byteCount - 8 else {
                throw InterchangeError.headerPastEnd(
                    path: path, headerByteCount: Int(length), available: file.byteCount - 8)
            }
            return try file.read(at: 8, count: Int(length))
        }
    }
}
