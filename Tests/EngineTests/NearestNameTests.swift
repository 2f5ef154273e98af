import Engine
import Testing

/// Which name a wrong one is taken for.
struct NearestNameTests {
    static let cases: [(name: String, candidates: [String], expected: String?)] = [
        ("blocks.0.qvk", ["blocks.0.qkv", "blocks.1.out"], "blocks.0.qkv"),
        ("Method", ["method", "memory"], "method"),
        ("atn", ["attn", "mlp"], "attn"),
        ("source_", ["source"], "source"),
        ("q", ["qkv"], "qkv"),
        // Anything of two letters is two edits away from any other.
        ("?", ["id", "explain"], nil),
        ("a", ["id"], nil),
        ("本語", ["id"], nil),
        ("l/α", ["l0"], nil),
        ("nothing", ["elsewhere"], nil),
        ("", ["id"], nil),
        ("id", [], nil),
    ]

    @Test(arguments: cases)
    func isTheOneThatWasMeant(name: String, candidates: [String], expected: String?) {
        #expect(nearestName(to: name, among: candidates) == expected)
    }
}
