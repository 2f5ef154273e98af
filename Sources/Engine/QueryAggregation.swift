import Schema

/// How the scores of several queries become one: for selecting data for a set of queries (LESS, arXiv 2402.04333).
public enum QueryAggregation: String, Sendable, CaseIterable {
    /// Every query has scores of its own.
    case none
    /// Σ over the queries.
    case sum
    /// Their mean.
    case mean
    /// The highest of them, for each example.
    case max
}

/// Queries that are scored as one: all of them, or those with the same value of a metadata field.
struct QueryGroups: Sendable {
    /// What each is called in the answer.
    let names: [String]
    /// The queries of each, ascending.
    let members: [[Int]]

    /// Groups in order of their first query; those without the field are called "(none)".
    init(metadata: [MetadataRecord?], field: String?, aggregation: QueryAggregation) throws(EngineError) {
        guard let field else {
            let count = metadata.count
            names = ["\(aggregation.rawValue) of \(count) \(count == 1 ? "query" : "queries")"]
            members = [Array(0..<count)]
            return
        }
        var places: [String: Int] = [:]
        var names: [String] = []
        var members: [[Int]] = []
        for (query, record) in metadata.enumerated() {
            let name = record?[field]?.text ?? RowGroups.nameOfNone
            if let place = places[name] {
                members[place].append(query)
            } else {
                places[name] = names.count
                names.append(name)
                members.append([query])
            }
        }
        guard metadata.contains(where: { $0?[field] != nil }) else {
            var known: [String] = []
            for record in metadata {
                for field in record?.fields ?? [] where !known.contains(field.name) { known.append(field.name) }
            }
            throw .fieldUnknown(
                option: "--aggregate-by", name: field, known: known.sorted(),
                nearest: nearestName(to: field, among: known))
        }
        self.names = names
        self.members = members
    }

    /// How many queries there are in all groups.
    var queryCount: Int { members.reduce(0) { $0 + $1.count } }

    /// Reduces the scores of several sets of the queries (one for each damping), one after another.
    func reduceEach(_ scores: [Float], rowCount: Int, by aggregation: QueryAggregation) -> [Float] {
        let size = queryCount * rowCount
        return stride(from: 0, to: scores.count, by: size).flatMap {
            reduce(Array(scores[$0..<$0 + size]), rowCount: rowCount, by: aggregation)
        }
    }

    /// Reduces scores, queries × rows, to groups × rows; sums in Double, in query order.
    private func reduce(_ scores: [Float], rowCount: Int, by aggregation: QueryAggregation) -> [Float] {
        var result: [Float] = []
        result.reserveCapacity(members.count * rowCount)
        for queries in members {
            if aggregation == .max {
                var highest = [Float](repeating: -.infinity, count: rowCount)
                for query in queries {
                    for row in 0..<rowCount { highest[row] = Swift.max(highest[row], scores[query * rowCount + row]) }
                }
                result += highest
            } else {
                var sums = [Double](repeating: 0, count: rowCount)
                for query in queries {
                    for row in 0..<rowCount { sums[row] += Double(scores[query * rowCount + row]) }
                }
                let divisor = aggregation == .mean ? Double(queries.count) : 1
                result += sums.map { Float($0 / divisor) }
            }
        }
        return result
    }
}
