/// Turns the JSON header of a safetensors file into tensors and metadata, refusing everything that the format forbids.
struct SafetensorsHeaderParser {
    private let path: String
    private let header: [UInt8]
    /// Where the tensors' bytes begin in the file.
    private let dataStart: Int
    private let dataByteCount: Int

    private(set) var metadata: [(key: String, value: String)] = []
    private var tensors: [TensorEntry] = []
    /// Every key of the header so far.
    private var names: Set<String> = []

    init(path: String, header: [UInt8], dataStart: Int, fileByteCount: Int) {
        self.path = path
        self.header = header
        self.dataStart = dataStart
        self.dataByteCount = fileByteCount - dataStart
    }

    mutating func parse() throws(InterchangeError) {
        let path = path
        try withInterchangeErrors {
            try parseHeader()
        } locatingJSON: {
            .headerNotJSON(path: path, fileOffset: 8 + $0.offset, failure: $0)
        }
    }

    private mutating func parseHeader() throws {
        var reader = JSONReader(header)
        var cursor = try reader.beginObject()
        while let name = try reader.nextKey(&cursor) {
            guard names.insert(name).inserted else {
                throw InterchangeError.duplicateName(path: path, name: name)
            }
            if name == "__metadata__" {
                try parseMetadata(&reader)
            } else {
                tensors.append(try parseTensor(&reader, name: name))
            }
        }
        try reader.finish()
    }

    /// The tensors by their place in the file, which they must cover exactly.
    func orderedTensors() throws(InterchangeError) -> [TensorEntry] {
        let ordered = tensors.sorted {
            ($0.byteRange.lowerBound, $0.byteRange.upperBound) < ($1.byteRange.lowerBound, $1.byteRange.upperBound)
        }
        var covered = dataStart
        var previous: String?
        for tensor in ordered {
            let start = tensor.byteRange.lowerBound
            if start < covered {
                throw .tensorsOverlap(
                    path: path, tensor: tensor.name, other: previous ?? "", expectedStart: covered - dataStart,
                    foundStart: start - dataStart)
            }
            if start > covered {
                throw .hole(path: path, before: tensor.name, byteRange: covered - dataStart..<start - dataStart)
            }
            covered = tensor.byteRange.upperBound
            previous = tensor.name
        }
        guard covered == dataStart + dataByteCount else {
            throw .trailingBytes(path: path, expected: covered - dataStart, found: dataByteCount)
        }
        return ordered
    }

    private mutating func parseMetadata(_ reader: inout JSONReader) throws {
        guard reader.kindOfNextValue() == "an object" else {
            throw InterchangeError.metadataNotString(path: path, key: nil, found: reader.kindOfNextValue())
        }
        var keys: Set<String> = []
        var cursor = try reader.beginObject()
        while let key = try reader.nextKey(&cursor) {
            guard keys.insert(key).inserted else {
                throw InterchangeError.duplicateName(path: path, name: "__metadata__/" + key)
            }
            guard reader.isAtString() else {
                throw InterchangeError.metadataNotString(path: path, key: key, found: reader.kindOfNextValue())
            }
            metadata.append((key, try reader.readString()))
        }
    }

    private func parseTensor(_ reader: inout JSONReader, name: String) throws -> TensorEntry {
        guard reader.kindOfNextValue() == "an object" else {
            throw InterchangeError.tensorMalformed(
                path: path, tensor: name, expected: "an object with dtype, shape and data_offsets",
                found: reader.kindOfNextValue())
        }
        var elementType: ElementType?
        var shape: [Int]?
        var offsets: [Int]?
        var keys: Set<String> = []
        var cursor = try reader.beginObject()
        while let key = try reader.nextKey(&cursor) {
            guard keys.insert(key).inserted else {
                throw InterchangeError.duplicateName(path: path, name: name + "/" + key)
            }
            switch key {
            case "dtype":
                guard reader.isAtString() else {
                    throw InterchangeError.tensorMalformed(
                        path: path, tensor: name, expected: "a string as dtype", found: reader.kindOfNextValue())
                }
                let text = try reader.readString()
                guard let known = ElementType(rawValue: text) else {
                    throw InterchangeError.unknownElementType(path: path, tensor: name, found: text)
                }
                elementType = known
            case "shape": shape = try parseCounts(&reader, tensor: name, key: key)
            case "data_offsets": offsets = try parseCounts(&reader, tensor: name, key: key)
            default: _ = try reader.skipValue()
            }
        }
        guard let elementType, let shape, let offsets else {
            let missing = elementType == nil ? "dtype" : shape == nil ? "shape" : "data_offsets"
            throw InterchangeError.tensorMalformed(
                path: path, tensor: name, expected: "dtype, shape and data_offsets", found: "no \(missing)")
        }
        return try checkedEntry(name: name, elementType: elementType, shape: shape, offsets: offsets)
    }

    private func parseCounts(_ reader: inout JSONReader, tensor: String, key: String) throws -> [Int] {
        guard reader.kindOfNextValue() == "an array" else {
            throw InterchangeError.tensorMalformed(
                path: path, tensor: tensor, expected: "an array as \(key)", found: reader.kindOfNextValue())
        }
        var counts: [Int] = []
        var cursor = try reader.beginArray()
        while try reader.nextElement(&cursor) { counts.append(try reader.readCount()) }
        return counts
    }

    private func checkedEntry(
        name: String, elementType: ElementType, shape: [Int], offsets: [Int]
    ) throws(InterchangeError) -> TensorEntry {
        guard offsets.count == 2 else {
            throw .tensorMalformed(
                path: path, tensor: name, expected: "two numbers as data_offsets", found: "\(offsets.count)")
        }
        guard offsets[0] <= offsets[1], offsets[1] <= dataByteCount else {
            throw .offsetsOutOfRange(path: path, tensor: name, offsets: offsets, dataByteCount: dataByteCount)
        }
        var needed = elementType.byteCount
        for dimension in shape {
            let (product, overflowed) = needed.multipliedReportingOverflow(by: dimension)
            guard !overflowed else { throw .shapeOverflow(path: path, tensor: name, shape: shape) }
            needed = product
        }
        guard needed == offsets[1] - offsets[0] else {
            throw .sizeMismatch(
                path: path, tensor: name, elementType: elementType, shape: shape, expected: needed,
                found: offsets[1] - offsets[0])
        }
        return TensorEntry(
            name: name, elementType: elementType, shape: shape,
            byteRange: dataStart + offsets[0]..<dataStart + offsets[1])
    }
}
