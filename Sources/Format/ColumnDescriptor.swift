/// What a column of a paged file holds. The container does not interpret it; its place in the table is the column's number.
public struct ColumnDescriptor: Hashable, Sendable {
    /// Segments use `SegmentColumnKind`; curvature files have their own kinds, from 32 on.
    public var kind: UInt8
    /// Always 0 in format 1.
    public var plane: UInt8
    /// The raw value of the numbers' `Encoding`, 0 for columns that hold no numbers.
    public var encoding: UInt8
    /// The layer's place in the schema, 0 where none is meant.
    public var layer: UInt32
    /// The rank component, 0 where none is meant.
    public var component: UInt32
    /// The name of a metadata field, empty otherwise.
    public var name: String

    /// A value of these parts.
    public init(
        kind: UInt8, plane: UInt8 = 0, encoding: UInt8 = 0, layer: UInt32 = 0, component: UInt32 = 0, name: String = ""
    ) {
        self.kind = kind
        self.plane = plane
        self.encoding = encoding
        self.layer = layer
        self.component = component
        self.name = name
    }

    static let minimumByteCount = 16

    func write(to writer: inout ByteWriter) {
        writer.write(kind)
        writer.write(plane)
        writer.write(encoding)
        writer.write(UInt8(0))
        writer.write(layer)
        writer.write(component)
        writer.write(string: name)
    }

    init(from reader: inout PartReader) throws(FormatError) {
        let kind: UInt8 = try reader.read()
        let plane: UInt8 = try reader.read()
        let encoding: UInt8 = try reader.read()
        try reader.readZeros(count: 1)
        self.init(
            kind: kind, plane: plane, encoding: encoding, layer: try reader.read(), component: try reader.read(),
            name: try reader.readString())
    }
}

extension ColumnDescriptor: CustomStringConvertible {
    /// The record's fields, in words.
    public var description: String {
        let base = "kind \(kind), plane \(plane), encoding \(encoding), layer \(layer), component \(component)"
        return name.isEmpty ? base : base + ", name \"\(name)\""
    }
}
