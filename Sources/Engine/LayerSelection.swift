import Glibc
import Schema

/// Layers that a query scores, and how their contributions are added up.
struct LayerSelection: Sendable {
    /// Positions in the store, ascending.
    let layers: [Int]
    /// Layers whose contributions are reported as one; every layer is in at most one group, and those in none stand for themselves.
    let groups: [(name: String, layers: [Int])]

    /// The layers that match any of the glob patterns (`*`, `?`, `[…]`; `*` crosses dots and slashes), in store order.
    ///
    /// `NAME=GLOB` makes a group of what GLOB matches; patterns of equal names make one group, and the first match wins. No patterns
    /// select every layer. A pattern that matches nothing is an error, since it is most likely a misspelling.
    init(_ patterns: [String], of schema: StoreSchema) throws(EngineError) {
        try self.init(patterns, ofNames: schema.layers.map(\.name))
    }

    /// The same for layers of any kind, by their names.
    init(_ patterns: [String], ofNames names: [String]) throws(EngineError) {
        guard !patterns.isEmpty else {
            layers = Array(names.indices)
            groups = []
            return
        }
        var selected: Set<Int> = []
        var groups: [(name: String, layers: [Int])] = []
        for pattern in patterns {
            let parts = pattern.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let glob = String(parts[parts.count - 1])
            let matches = names.indices.filter { fnmatch(glob, names[$0], 0) == 0 }
            guard !matches.isEmpty else {
                throw .patternMatchesNothing(pattern: glob, layers: names)
            }
            if parts.count == 2 {
                let name = String(parts[0])
                let fresh = matches.filter { layer in !groups.contains { $0.layers.contains(layer) } }
                if let place = groups.firstIndex(where: { $0.name == name }) {
                    groups[place].layers += fresh
                } else {
                    groups.append((name, fresh))
                }
            }
            selected.formUnion(matches)
        }
        layers = selected.sorted()
        self.groups = groups
    }
}

/// The candidate closest to `name` by edit distance, if it is close enough to be meant.
///
/// Looks at the first 65,536 candidates. Works in proportion to their number and to the square of their length.
public func nearestName(to name: String, among candidates: [String]) -> String? {
    let target = Array(name.unicodeScalars.prefix(256))
    var best: (name: String, distance: Int)?
    for candidate in candidates.prefix(1 << 16) {
        let scalars = Array(candidate.unicodeScalars.prefix(256))
        // Every letter more or less is an edit.
        guard abs(scalars.count - target.count) < best?.distance ?? Int.max else { continue }
        let distance = editDistance(target, scalars)
        if distance < best?.distance ?? Int.max { best = (candidate, distance) }
    }
    // Two edits make anything of three letters: of short names only one that goes on where the other ends is meant.
    guard let best, best.distance <= max(2, target.count / 3) else { return nil }
    let isShort = min(target.count, best.name.unicodeScalars.count) <= 3
    guard !isShort || best.distance == 1 || best.name.hasPrefix(name) || name.hasPrefix(best.name) else { return nil }
    return name.isEmpty ? nil : best.name
}

private func editDistance(_ a: [Unicode.Scalar], _ b: [Unicode.Scalar]) -> Int {
    var previous = Array(0...b.count)
    for (i, x) in a.enumerated() {
        var current = [i + 1]
        for (j, y) in b.enumerated() {
            current.append(min(previous[j + 1] + 1, current[j] + 1, previous[j] + (x == y ? 0 : 1)))
        }
        previous = current
    }
    return previous[b.count]
}
