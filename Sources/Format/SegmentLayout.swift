public import Schema

/// What a column of a segment holds; the raw value is the on-disk code.
public enum SegmentColumnKind: UInt8, Hashable, Sendable, CaseIterable {
    case left = 1
    case right = 2
    case dense = 3
    case norms = 4
    case residualNorms = 5
    case identifiers = 6
    case identifierIndex = 7
    case field = 8
}

/// Which columns a segment of a schema has, and in which order its pages lie: the scan order.
///
/// Columns: for component k, for each layer of rank above k: left, right; then the dense layers; norms; residual norms;
/// identifiers; identifier index; then the metadata fields in order of first appearance. In a block pages follow the columns, without
/// the identifier index, whose pages follow the last block; a field without any value in a block has no page there.
public struct SegmentLayout: Sendable {
    /// What every row has.
    public let schema: StoreSchema
    /// Every column but the fields.
    public let columns: [ColumnDescriptor]
    /// The column of component 0 of a layer's left factors; component k's is found by `leftColumn`.
    private let firstColumns: [[Int]]

    /// O(columns); the schema must be valid.
    public init(schema: StoreSchema) {
        self.schema = schema
        var columns: [ColumnDescriptor] = []
        var firstColumns = [[Int]](repeating: [], count: schema.layers.count)
        let encoding = schema.encoding.rawValue
        func column(_ kind: SegmentColumnKind, _ encoding: UInt8, layer: Int = 0, component: Int = 0) {
            columns.append(
                ColumnDescriptor(
                    kind: kind.rawValue, encoding: encoding, layer: UInt32(layer), component: UInt32(component)))
        }
        let maximumRank = schema.layers.compactMap(\.rank).max() ?? 0
        for component in 0..<maximumRank {
            for (index, layer) in schema.layers.enumerated() {
                guard let rank = layer.rank, rank > component else { continue }
                firstColumns[index].append(columns.count)
                column(.left, encoding, layer: index, component: component)
                column(.right, encoding, layer: index, component: component)
            }
        }
        for (index, layer) in schema.layers.enumerated() where layer.rank == nil {
            firstColumns[index].append(columns.count)
            column(.dense, encoding, layer: index)
        }
        column(.norms, Encoding.bf16.rawValue)
        column(.residualNorms, Encoding.bf16.rawValue)
        column(.identifiers, 0)
        column(.identifierIndex, 0)
        self.columns = columns
        self.firstColumns = firstColumns
    }

    /// How many columns the schema calls for without fields, computed without building them.
    static func columnCount(of schema: StoreSchema) -> Int {
        schema.layers.reduce(4) { $0 + ($1.rank.map { 2 * $0 } ?? 1) }
    }

    /// The column of a layer's left factors of one component.
    public func leftColumn(layer: Int, component: Int) -> Int { firstColumns[layer][component] }
    /// The column of a layer's right factors of one component.
    public func rightColumn(layer: Int, component: Int) -> Int { firstColumns[layer][component] + 1 }
    /// The column of a dense layer.
    public func denseColumn(layer: Int) -> Int { firstColumns[layer][0] }
    /// The column of the norms.
    public var normColumn: Int { columns.count - 4 }
    /// The column of the residual norms.
    public var residualNormColumn: Int { columns.count - 3 }
    /// The column of the ids.
    public var identifierColumn: Int { columns.count - 2 }
    /// The column of the identifier index.
    public var identifierIndexColumn: Int { columns.count - 1 }
    /// The first metadata field's column.
    public var firstFieldColumn: Int { columns.count }

    /// The column of a metadata field.
    public static func fieldColumn(named name: String) -> ColumnDescriptor {
        ColumnDescriptor(kind: SegmentColumnKind.field.rawValue, name: name)
    }

    /// The raw length of the page of a column, nil for those whose length is free.
    func rawLength(column: Int, rowCount: Int) -> Int? {
        guard column < firstFieldColumn, let kind = SegmentColumnKind(rawValue: columns[column].kind) else {
            return nil
        }
        let layer = schema.layers[Int(columns[column].layer)]
        func vectors(_ length: Int) -> Int {
            VectorPage.byteCount(rowCount: rowCount, length: length, encoding: schema.encoding)
        }
        switch kind {
        case .left: return vectors(layer.inputDimension)
        case .right: return vectors(layer.outputDimension)
        case .dense: return vectors(layer.gradientLength)
        case .norms, .residualNorms: return 2 * schema.layers.count * rowCount
        case .identifierIndex: return IdentifierIndexPage.entryByteCount * rowCount
        case .identifiers, .field: return nil
        }
    }
}

/// A segment's footer, understood: it obeys the rules of the container and those of segments.
public struct SegmentFooter: Sendable {
    /// The container's footer.
    public let footer: FileFooter
    /// Which columns and pages the schema implies.
    public let layout: SegmentLayout
    /// Names of the metadata fields, in column order.
    public let fieldNames: [String]
    /// One for each block.
    public let statistics: [BlockStatistics]

    /// What every row has.
    public var schema: StoreSchema { layout.schema }
    /// Rows of the segment.
    public var rowCount: Int { footer.rowCount }
    /// Rows of every block but the last.
    public var rowsPerBlock: Int { footer.rowsPerBlock }
    /// How many row blocks there are.
    public var blockCount: Int { footer.blockCount }

    /// The rows of a block.
    public func rows(ofBlock block: Int) -> Range<Int> {
        precondition((0..<blockCount).contains(block))
        return block * rowsPerBlock..<min(rowCount, (block + 1) * rowsPerBlock)
    }

    /// Judges a container's footer by the rules of segments. O(pages).
    public init(validating footer: FileFooter) throws(FormatError) {
        let schema = try StoreSchema(decoding: footer.schema)
        guard !schema.layers.isEmpty else { throw .layerCount(found: 0, limit: Limits.layerCount) }
        guard (1...Limits.segmentRowCount).contains(footer.rowCount) else {
            throw .rowCount(found: footer.rowCount, limit: Limits.segmentRowCount)
        }
        guard footer.rowsPerBlock % 32 == 0, (32...Limits.blockRowCount).contains(footer.rowsPerBlock) else {
            throw .rowsPerBlock(found: footer.rowsPerBlock)
        }
        let blockCount = (footer.rowCount + footer.rowsPerBlock - 1) / footer.rowsPerBlock
        guard footer.blockCount == blockCount else {
            throw .blockCount(expected: blockCount, found: footer.blockCount)
        }
        // Counted before it is built: a hostile schema may call for more columns than memory holds.
        let fixedCount = SegmentLayout.columnCount(of: schema)
        guard footer.columns.count >= fixedCount else {
            throw .columnCount(expected: fixedCount, found: footer.columns.count)
        }
        let layout = SegmentLayout(schema: schema)
        for (index, expected) in layout.columns.enumerated() where footer.columns[index] != expected {
            throw .unexpectedColumn(column: index, expected: expected, found: footer.columns[index])
        }
        self.footer = footer
        self.layout = layout
        self.fieldNames = try Self.validateFields(footer.columns, from: fixedCount)
        self.statistics = try BlockStatistics.decode(footer.statistics, blockCount: blockCount)
        try validatePages()
    }

    private static func validateFields(
        _ columns: [ColumnDescriptor], from firstField: Int
    ) throws(FormatError) -> [String] {
        guard columns.count - firstField <= Limits.metadataFieldCount else {
            throw .fieldCount(found: columns.count - firstField, limit: Limits.metadataFieldCount)
        }
        var names: [String] = []
        var seen = Set<String>()
        for index in firstField..<columns.count {
            let name = columns[index].name
            let expected = SegmentLayout.fieldColumn(named: name)
            guard columns[index] == expected else {
                throw .unexpectedColumn(column: index, expected: expected, found: columns[index])
            }
            guard name.utf8.count <= Limits.layerNameBytes else {
                throw .fieldName(column: index, byteCount: name.utf8.count, limit: Limits.layerNameBytes)
            }
            guard seen.insert(name).inserted else { throw .duplicateFieldName(column: index, name: name) }
            names.append(name)
        }
        return names
    }

    /// The pages are those of the layout, in its order, with the row counts and lengths that it implies.
    private func validatePages() throws(FormatError) {
        var page = 0
        /// Consumes the page of (column, block) if it is next.
        func take(_ column: Int, _ block: Int) throws(FormatError) -> Bool {
            guard page < footer.pages.count else { return false }
            let entry = footer.pages[page]
            guard entry.column == column, entry.block == block else { return false }
            let rowCount = rows(ofBlock: block).count
            guard entry.rowCount == rowCount else {
                throw .pageRowCount(page: page, expected: rowCount, found: Int(entry.rowCount))
            }
            if let expected = layout.rawLength(column: column, rowCount: rowCount), entry.rawLength != expected {
                throw .pageRawLength(page: page, expected: expected, found: Int(entry.rawLength))
            }
            page += 1
            return true
        }
        for block in 0..<blockCount {
            for column in 0..<layout.identifierIndexColumn {
                guard try take(column, block) else { throw .missingPage(column: column, block: block) }
            }
            for column in layout.firstFieldColumn..<footer.columns.count { _ = try take(column, block) }
        }
        for block in 0..<blockCount {
            guard try take(layout.identifierIndexColumn, block) else {
                throw .missingPage(column: layout.identifierIndexColumn, block: block)
            }
        }
        guard page == footer.pages.count else {
            let extra = footer.pages[page]
            throw .unexpectedPage(page: page, column: Int(extra.column), block: Int(extra.block))
        }
    }
}
