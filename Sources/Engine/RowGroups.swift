import Schema
import Store

/// What the examples with one value of a metadata field have in common for a query.
public struct GroupScore: Sendable {
    /// The value; "(none)" for examples without one.
    public let name: String
    /// Examples scored.
    public let exampleCount: Int
    /// Of their scores.
    public let sum: Double
    /// The highest one.
    public let highest: Float
    /// How many of the query's ranked top are in the group.
    public internal(set) var topCount = 0

    /// Of the scores.
    public var mean: Double { sum / Double(exampleCount) }
}

/// The scanned rows by the value of a metadata field. Memory: 4 bytes for each row.
struct RowGroups: Sendable {
    /// What examples without the field are called.
    static let nameOfNone = "(none)"

    let names: [String]
    /// By block, the place in `names` of each live row.
    private let places: [[UInt32]]

    /// Reads the field of every row; throws `.fieldUnknown` if no segment has it.
    init(_ rows: LiveRows, field: String, workers: Int) throws {
        let known = try rows.fieldNames()
        guard known.contains(field) else {
            throw EngineError.fieldUnknown(
                option: "--group-by", name: field, known: known.sorted(),
                nearest: nearestName(to: field, among: known.sorted()))
        }
        // The names of a block by its own numbering; the blocks are joined in order, so that any number of workers gives the same.
        let blocks = try mapConcurrently(below: rows.blocks.count, workers: workers) { index in
            let block = rows.blocks[index]
            let reader = try rows.snapshot.segmentReader(block.segment)
            var values: [MetadataValue?]?
            if let position = reader.fieldNames.firstIndex(of: field) {
                values = try reader.readField(position, block: block.block)
            }
            var names: [String] = []
            var numbers: [String: UInt32] = [:]
            let all = reader.rows(ofBlock: block.block)
            let places = (block.selection ?? Array(0..<all.count)).map { row in
                let name = values?[row]?.text ?? Self.nameOfNone
                if let number = numbers[name] { return number }
                let number = UInt32(names.count)
                numbers[name] = number
                names.append(name)
                return number
            }
            return (names: names, places: places)
        }
        var names: [String] = []
        var numbers: [String: UInt32] = [:]
        places = blocks.map { block in
            let own = block.names.map { name in
                if let number = numbers[name] { return number }
                let number = UInt32(names.count)
                numbers[name] = number
                names.append(name)
                return number
            }
            return block.places.map { own[Int($0)] }
        }
        self.names = names
    }

    /// The groups' sums over some rows.
    struct Tally: Sendable {
        var exampleCount: Int
        var sum: Double
        var highest: Float

        static let empty = Tally(exampleCount: 0, sum: 0, highest: -.infinity)

        mutating func add(_ other: Tally) {
            exampleCount += other.exampleCount
            sum += other.sum
            highest = max(highest, other.highest)
        }
    }

    /// Tallies of a block's rows for one query, by group.
    func tallies(block: Int, scores: Span<Float>) -> [UInt32: Tally] {
        var tallies: [UInt32: Tally] = [:]
        for (row, group) in places[block].enumerated() {
            tallies[group, default: .empty].add(
                Tally(exampleCount: 1, sum: Double(scores[row]), highest: scores[row]))
        }
        return tallies
    }

    /// Every group with any example, the largest sum first, ties by name.
    func scores(_ tallies: [UInt32: Tally]) -> [GroupScore] {
        tallies.map { group, tally in
            GroupScore(
                name: names[Int(group)], exampleCount: tally.exampleCount, sum: tally.sum, highest: tally.highest)
        }.sorted { $0.sum != $1.sum ? $0.sum > $1.sum : $0.name < $1.name }
    }
}
