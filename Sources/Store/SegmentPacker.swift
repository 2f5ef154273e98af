public import Schema

/// Writes one self-contained segment outside of any store, from row blocks of any size: what `StoreWriter.attach` takes in.
public struct SegmentPacker: ~Copyable {
    private var writer: SegmentWriter
    private var rows: RowAccumulator
    private let schema: StoreSchema
    private let path: String

    /// Begins a segment that will get the name `path`, which must be free when it is sealed. Until then it has a temporary name
    /// beside it, and is removed if this value goes away.
    public init(schema: StoreSchema, path: String, provenance: String) throws(StoreError) {
        writer = try SegmentWriter(
            schema: schema, temporaryPath: path + ".packing-" + hexadecimal(.random(in: .min ... .max)),
            provenance: provenance)
        rows = RowAccumulator(schema: schema)
        self.schema = schema
        self.path = path
    }

    /// Adds rows. Throws `.segmentFull` past `Limits.segmentRowCount` rows.
    public mutating func append(_ block: RowBlock) throws(StoreError) {
        try block.validate(against: schema)
        rows.append(block)
        while rows.rowCount >= schema.rowsPerBlock { try writer.append(rows.take(schema.rowsPerBlock)) }
    }

    /// Writes what is left and gives the file its name, durably.
    public consuming func seal() throws(StoreError) -> SegmentIdentity {
        if rows.rowCount > 0 { try writer.append(rows.take(rows.rowCount)) }
        return try writer.seal(as: path)
    }
}
