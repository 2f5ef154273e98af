import Foundation
import Schema
public import Store

/// Which of a store's live rows a command is about.
public enum RowSelection: Sendable {
    case all
    /// The rows with these ids; an id that no live row has is an error.
    case identifiers([String])
    /// The rows that pass a condition.
    case filter(RowFilter)
    /// The rows with these ids that pass the condition.
    case among([String], RowFilter)
}

extension LiveRows {
    /// The rows of a selection, in ingest order.
    func selecting(_ selection: RowSelection, workers: Int) throws -> LiveRows {
        switch selection {
        case .all: self
        case .identifiers(let identifiers): try selecting(identifiers: identifiers)
        case .filter(let filter): try selecting(filter, workers: workers)
        case .among(let identifiers, let filter):
            try selecting(identifiers: identifiers).selecting(filter, workers: workers)
        }
    }

    private func selecting(identifiers: [String]) throws -> LiveRows {
        let locations = try snapshot.locate(identifiers: identifiers)
        if locations.count < identifiers.count {
            let unknown = identifiers.indices.filter { locations[$0] == nil }.map { identifiers[$0] }
            throw try snapshot.unknownExamples(unknown)
        }
        var wanted: [Int: Set<Int>] = [:]
        for location in locations.values { wanted[location.segment, default: []].insert(location.row) }
        return try restricted { block, rows in
            let segmentRows = wanted[block.segment] ?? []
            if segmentRows.isEmpty { return [] }
            let first = try snapshot.segmentReader(block.segment).rows(ofBlock: block.block).lowerBound
            return rows.filter { segmentRows.contains(first + $0) }
        }
    }

    private func selecting(_ filter: RowFilter, workers: Int) throws -> LiveRows {
        try checkFields(of: filter)
        let needed = filter.fieldNames
        let passing = try mapConcurrently(below: blocks.count, workers: workers) { index in
            let block = blocks[index]
            let reader = try snapshot.segmentReader(block.segment)
            let rows = reader.rows(ofBlock: block.block)
            var records = [MetadataRecord](repeating: MetadataRecord(), count: rows.count)
            for (field, name) in reader.fieldNames.enumerated() where needed.contains(name) {
                guard let values = try reader.readField(field, block: block.block) else { continue }
                for (row, value) in values.enumerated() {
                    if let value { records[row].fields.append((name, value)) }
                }
            }
            let identifiers =
                needed.contains(RowFilter.identifierField)
                ? try reader.readIdentifiers(block: block.block) : [String](repeating: "", count: rows.count)
            return (block.selection ?? Array(0..<rows.count)).filter {
                filter.passes(identifier: identifiers[$0], metadata: records[$0])
            }
        }
        var index = -1
        return try restricted { _, _ in
            index += 1
            return passing[index]
        }
    }

    /// A field that no row has is most likely misspelt.
    private func checkFields(of filter: RowFilter) throws {
        let known = try fieldNames().union([RowFilter.identifierField])
        for name in filter.fieldNames.sorted() where !known.contains(name) {
            throw EngineError.fieldUnknown(
                option: "--where", name: name, known: known.sorted(),
                nearest: nearestName(to: name, among: known.sorted()))
        }
    }

    /// The rows at some ordinals, in ingest order.
    func selecting(ordinals: [Int]) throws -> LiveRows {
        let wanted = Set(ordinals)
        return try restricted { block, rows in
            rows.enumerated().filter { wanted.contains(block.firstOrdinal + $0.offset) }.map(\.element)
        }
    }

    /// The metadata fields that any segment has.
    func fieldNames() throws -> Set<String> {
        var known: Set<String> = []
        for segment in snapshot.segments.indices { known.formUnion(try snapshot.segmentReader(segment).fieldNames) }
        return known
    }

    /// The same blocks with fewer rows; `choose` gets a block and its rows and gives those to keep, ascending.
    private func restricted(_ choose: (Block, [Int]) throws -> [Int]) throws -> LiveRows {
        var kept: [Block] = []
        var ordinal = 0
        for block in blocks {
            let total = try snapshot.segmentReader(block.segment).rows(ofBlock: block.block).count
            let selection = try choose(block, block.selection ?? Array(0..<total))
            guard !selection.isEmpty else { continue }
            kept.append(
                Block(
                    segment: block.segment, block: block.block, firstOrdinal: ordinal,
                    selection: selection.count == total ? nil : selection, rowCount: selection.count))
            ordinal += selection.count
        }
        return LiveRows(snapshot: snapshot, blocks: kept, rowCount: ordinal)
    }
}

extension Snapshot {
    /// The error about ids that no live example has, with the closest one that there is.
    func unknownExamples(_ identifiers: [String]) throws -> EngineError {
        .examplesUnknown(
            count: identifiers.count, first: Array(identifiers.prefix(5)),
            nearest: try identifiers.first.flatMap(nearestIdentifier))
    }

    /// The id of a live example that is close enough to be meant, among the first 65,536.
    public func nearestIdentifier(to identifier: String) throws -> String? {
        let rows = try LiveRows(self)
        var known: [String] = []
        for block in rows.blocks.indices where known.count < 1 << 16 { known += try rows.readIdentifiers(block: block) }
        return nearestName(to: identifier, among: known)
    }
}

/// The ids in a file, or on standard input for "-": one on each line, or a JSON array of strings. Blank lines are left out.
public func readIdentifiers(fromFile path: String) throws(EngineError) -> [String] {
    let standardInput = path == "-" ? try? FileHandle.standardInput.readToEnd() ?? Data() : nil
    guard let data = standardInput ?? FileManager.default.contents(atPath: path) else {
        throw .invalidRequest(
            FileManager.default.fileExists(atPath: path) ? "\(path): cannot be read" : "\(path) does not exist")
    }
    guard let text = String(validating: data, as: UTF8.self) else {
        throw .invalidRequest("\(path): expected UTF-8 text, found other bytes")
    }
    if text.drop(while: \.isWhitespace).first == "[" {
        guard let identifiers = try? JSONDecoder().decode([String].self, from: data) else {
            throw .invalidRequest("\(path): expected a JSON array of strings")
        }
        return identifiers
    }
    return text.split(whereSeparator: \.isNewline).map(String.init)
}
