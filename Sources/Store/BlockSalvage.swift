import Format
import Kernels
import Schema

/// What stands for the damaged pages of a block whose factors and ids are whole.
struct BlockSubstitutes: Sendable {
    /// Made anew from the factors, [layer][row].
    var norms: [[Float]]?
    /// Infinity: what was lost before the store is not known any more, and these are upper bounds.
    var residualNorms: [[Float]]?
    /// Metadata fields that are left out.
    var lostFields: Set<String> = []
}

/// How much of a block can be saved.
enum BlockCondition {
    /// Factors or ids are damaged.
    case lost(StoreError)
    /// Everything, or what the substitutes stand for is not.
    case saved(BlockSubstitutes?)
}

extension SegmentReader {
    /// Reads all pages of a block. The identifier index, which a new segment gets anew, does not count.
    func condition(ofBlock block: Int) -> BlockCondition {
        var substitutes = BlockSubstitutes()
        var isWhole = true
        do throws(StoreError) {
            for (number, entry) in file.footer.pages.enumerated() where Int(entry.block) == block {
                switch SegmentColumnKind(rawValue: file.footer.columns[Int(entry.column)].kind) {
                case .left, .right, .dense: _ = try file.readPage(number)
                default: continue
                }
            }
            _ = try readIdentifiers(block: block)
            if (try? readNorms(block: block)) == nil {
                substitutes.norms = try exactNorms(block: block)
                isWhole = false
            }
        } catch {
            return .lost(error)
        }
        if (try? readResidualNorms(block: block)) == nil {
            let unknown = [Float](repeating: .infinity, count: rows(ofBlock: block).count)
            substitutes.residualNorms = schema.layers.map { _ in unknown }
            isWhole = false
        }
        for (index, name) in fieldNames.enumerated() {
            do throws(StoreError) {
                _ = try readField(index, block: block)
            } catch {
                substitutes.lostFields.insert(name)
                isWhole = false
            }
        }
        return .saved(isWhole ? nil : substitutes)
    }

    /// Upper bounds of the norms of what is stored, as bfloat16 values, [layer][row].
    private func exactNorms(block: Int) throws(StoreError) -> [[Float]] {
        var norms: [[Float]] = []
        for index in schema.layers.indices {
            let tile = try readTile(block: block, layer: index)
            norms.append(LayerNorms(of: tile).stored.map { float(bfloat16: bfloat16RoundedUp($0)) })
        }
        return norms
    }
}
