import Interchange
import Schema
import Testing

struct QuickTests {
    @Test func reads() throws {
        for f in ["train_c1", "train_c4", "query_c1", "query_full", "retraining/train_full", "retraining/query_full"] {
            let b = try FactorBatch(path: "/work/shared/reference/\(f).safetensors", metadataPath: f == "query_full" ? "/work/shared/reference/query.jsonl" : f.hasPrefix("train_c") ? "/work/shared/reference/train.jsonl": nil)
            print(f, b.rowCount, b.layers[0], b.layers.map(\.name), b.identifiers?.prefix(3) as Any, b.provenance.map(\.0), b.metadataRowCount)
            let t = try b.readTile(layer: 1, rows: 3..<5)
            print(t.left.prefix(5), t.dense.prefix(5), try b.digest())
            print(try b.metadata(rows: 2..<4))
        }
    }
}
