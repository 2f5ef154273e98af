import Glibc
import Schema

/// The positions of the layers that match any of the glob patterns (`*`, `?`, `[…]`; `*` crosses dots and slashes), in store order.
///
/// No patterns select every layer. A pattern that matches nothing is an error, since it is most likely a misspelling.
func selectLayers(_ patterns: [String], of schema: StoreSchema) throws(EngineError) -> [Int] {
    guard !patterns.isEmpty else { return Array(schema.layers.indices) }
    var selected: Set<Int> = []
    for pattern in patterns {
        let matches = schema.layers.indices.filter { fnmatch(pattern, schema.layers[$0].name, 0) == 0 }
        guard !matches.isEmpty else {
            throw .patternMatchesNothing(pattern: pattern, layers: schema.layers.map(\.name))
        }
        selected.formUnion(matches)
    }
    return selected.sorted()
}

/// The candidate closest to `name` by edit distance, if it is close enough to be meant.
func nearestName(to name: String, among candidates: [String]) -> String? {
    let target = Array(name.unicodeScalars.prefix(256))
    var best: (name: String, distance: Int)?
    for candidate in candidates.prefix(4096) {
        let distance = editDistance(target, Array(candidate.unicodeScalars.prefix(256)))
        if distance < best?.distance ?? Int.max { best = (candidate, distance) }
    }
    guard let best, best.distance <= max(2, target.count / 3) else { return nil }
    return best.name
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
