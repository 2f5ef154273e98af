import Checksum
public import Schema

extension StoreSchema {
    /// The schema's bytes in a segment's footer; the digest of these bytes is the schema's identity.
    public func encoded() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(encoding.rawValue)
        writer.write(basis == nil ? UInt8(0) : 1)
        writer.write(bytes: [0, 0])
        writer.write(UInt32(layers.count))
        for layer in layers {
            writer.write(string: layer.name)
            writer.write(UInt32(layer.inputDimension))
            writer.write(UInt32(layer.outputDimension))
            writer.write(layer.rank == nil ? Self.denseForm : Self.factorsForm)
            writer.write(UInt32(layer.rank ?? 0))
        }
        if let basis {
            writer.write(basis.low)
            writer.write(basis.high)
        }
        return writer.bytes
    }

    private static var factorsForm: UInt8 { 1 }
    private static var denseForm: UInt8 { 2 }
    private static var minimumLayerByteCount: Int { 17 }

    /// The schema in untrusted bytes, obeying every rule of `validate`.
    public init(decoding bytes: [UInt8]) throws(FormatError) {
        var reader = PartReader(bytes, part: .schema)
        let code: UInt8 = try reader.read()
        guard let encoding = Encoding(rawValue: code) else { throw .unknownEncoding(code) }
        let basisFlag: UInt8 = try reader.read()
        guard basisFlag <= 1 else { throw .reservedNotZero(part: .schema, offset: 1, found: basisFlag) }
        try reader.readZeros(count: 2)
        let layerCount = try reader.readCount()
        try reader.expectRoom(count: layerCount, minimumByteCount: Self.minimumLayerByteCount)
        var layers: [LayerSchema] = []
        layers.reserveCapacity(layerCount)
        for index in 0..<layerCount {
            let name = try reader.readString()
            let inputDimension = try reader.readCount()
            let outputDimension = try reader.readCount()
            let formCode: UInt8 = try reader.read()
            let rank = try reader.readCount()
            let form: LayerForm
            switch formCode {
            case Self.factorsForm: form = .factors(rank: rank)
            case Self.denseForm:
                guard rank == 0 else { throw .rank(layer: index, found: rank, limit: 0) }
                form = .dense
            default: throw .unknownForm(layer: index, found: formCode)
            }
            layers.append(
                LayerSchema(
                    name: name, inputDimension: inputDimension, outputDimension: outputDimension, form: form))
        }
        var basis: Digest?
        if basisFlag == 1 {
            let words = try reader.readDigest()
            basis = Digest(high: words.high, low: words.low)
        }
        try reader.expectEnd()
        self.init(layers: layers, encoding: encoding, basis: basis)
        try validate()
    }

    /// Whether a store can have this schema: names present and unique, numbers within `Limits`, pages not too large.
    ///
    /// No layers at all means that they are not yet decided; a store without layers has no segments.
    public func validate() throws(FormatError) {
        guard layers.count <= Limits.layerCount else {
            throw .layerCount(found: layers.count, limit: Limits.layerCount)
        }
        var names = Set<String>(minimumCapacity: layers.count)
        for (index, layer) in layers.enumerated() {
            let nameByteCount = layer.name.utf8.count
            guard (1...Limits.layerNameBytes).contains(nameByteCount) else {
                throw .layerName(layer: index, byteCount: nameByteCount, limit: Limits.layerNameBytes)
            }
            guard names.insert(layer.name).inserted else { throw .duplicateLayerName(layer: index, name: layer.name) }
            for dimension in [layer.inputDimension, layer.outputDimension] {
                guard (1...Limits.dimension).contains(dimension) else {
                    throw .dimension(layer: index, found: dimension, limit: Limits.dimension)
                }
            }
            guard layer.gradientLength <= Limits.gradientLength else {
                throw .gradientLength(layer: index, found: layer.gradientLength, limit: Limits.gradientLength)
            }
            if let rank = layer.rank {
                guard (1...Limits.rank).contains(rank) else {
                    throw .rank(layer: index, found: rank, limit: Limits.rank)
                }
            }
        }
        let rows = rowsPerBlock
        for (index, layer) in layers.enumerated() {
            let length = layer.rank == nil ? layer.gradientLength : max(layer.inputDimension, layer.outputDimension)
            let byteCount = VectorPage.byteCount(rowCount: rows, length: length, encoding: encoding)
            guard byteCount <= Limits.pageBytes else {
                throw .blockTooLarge(layer: index, pageByteCount: byteCount, limit: Limits.pageBytes)
            }
        }
    }
}

/// Sizes of vector pages.
public enum VectorPage {
    /// Bytes of the page of `rowCount` vectors of `length` numbers: codes, padding to 8, scales.
    ///
    /// Cannot overflow for at most `Limits.segmentRowCount` rows of at most `Limits.gradientLength` numbers.
    public static func byteCount(rowCount: Int, length: Int, encoding: Encoding) -> Int {
        let groups = (rowCount + 31) / 32
        /// Bytes of a plane of `bits`-bit codes: 16 bytes for every nibble of a group of 32 rows.
        func plane(bits: Int) -> Int { groups * ((length * bits + 3) / 4) * 16 }
        let codes =
            switch encoding {
            case .f32: rowCount * length * 4
            case .f16, .bf16: rowCount * length * 2
            case .int8: rowCount * length
            case .q4: plane(bits: 4)
            case .q3: plane(bits: 2) + plane(bits: 1)
            case .q2: plane(bits: 2)
            case .q1: plane(bits: 1)
            }
        return (codes + 7) / 8 * 8 + (encoding.hasScale ? rowCount * 2 : 0)
    }
}
