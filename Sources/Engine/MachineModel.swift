import Schema

/// What a machine can do, as far as the planner wants to know: rates of memory and disk, and what a kernel takes for a unit of work.
///
/// `calibrateMachine` measures it, `standard` is the model of a machine that nobody has measured. Costs of kernels are of one thread while
/// all processors run the same, checksums and memory traffic included: so a scan takes the sum of its costs by the number of threads.
public struct MachineModel: Codable, Sendable, Hashable {
    /// The cost of a unit of work when so many queries (or pairs of query components) share it.
    public struct Point: Codable, Sendable, Hashable {
        /// Queries, or pairs.
        public let count: Int
        /// Of one thread, for a unit and all the queries.
        public let nanoseconds: Double

        init(_ count: Int, _ nanoseconds: Double) {
            self.count = count
            self.nanoseconds = nanoseconds
        }
    }

    /// Which machine this is of: a model of another one is not used.
    public struct Machine: Codable, Sendable, Hashable {
        /// The processor's name, as the system has it.
        public let processor: String
        /// Processors.
        public let coreCount: Int
        /// The tier of kernels.
        public let kernelTier: String
        /// The release of lorif, whose kernels were measured.
        public let version: String
    }

    /// nil for the standard model.
    public let machine: Machine?
    /// A plain sum over memory by all threads.
    public let memoryBytesPerSecond: Double
    /// A file through the page cache, cold, by four threads a processor.
    public let cachedDiskBytesPerSecond: Double
    /// The same past the page cache; 0 where the file system has no direct reads.
    public let directDiskBytesPerSecond: Double
    /// Matrix products in f32 by all threads.
    public let productFlopsPerSecond: Double
    /// By `Work.name`.
    let costs: [String: [Point]]
}

/// Kinds of work that a query consists of, each with its unit.
enum Work: Hashable {
    /// Pairs of query components against factors in their pages: c · (d1 + d2) numbers of a row, and besides c for the row; by pairs.
    case pairs(Encoding)
    case pairRows(Encoding)
    /// The same by the rough tables of `leadingPairs`.
    case leadingPairs(Encoding)
    case leadingPairRows(Encoding)
    /// Full queries against factors in their pages: c · d1 · d2 of a row; by queries.
    case contraction(Encoding)
    /// Queries against matrices in their pages: d1 · d2 of a row; by queries.
    case dense(Encoding)
    /// Pages to f32: numbers of a row.
    case decoding(Encoding)
    /// Matrix products with decoded rows, units as above; with rows of rank 1 made into matrices, d1 · d2 of a row.
    case pairProducts, contractionProducts, reconstructionProducts, denseProducts
    /// A further component of a row that is made into a matrix: d1 · d2.
    case furtherComponents
    /// Making tables of queries: numbers of a query (pairs · (d1 + d2), or d1 · d2).
    case pairTables(Encoding)
    case contractionTables(Encoding)
    case denseTables(Encoding)
    /// Singular pairs of a query's matrix: d1 · d2.
    case singularPairs
    /// One row scored again in Double: c · d1 · d2 (full), or c · c_q · (d1 + d2).
    case refinement
    /// A score offered to a ranked list.
    case ranking
    /// Bytes of a mapped file that are in memory but not yet in this process.
    case mapping

    /// As in the file of a model.
    var name: String {
        switch self {
        case .pairs(let encoding): "pairs.\(encoding.name)"
        case .pairRows(let encoding): "pairs.rows.\(encoding.name)"
        case .leadingPairs(let encoding): "leadingPairs.\(encoding.name)"
        case .leadingPairRows(let encoding): "leadingPairs.rows.\(encoding.name)"
        case .contraction(let encoding): "contraction.\(encoding.name)"
        case .dense(let encoding): "dense.\(encoding.name)"
        case .decoding(let encoding): "decoding.\(encoding.name)"
        case .pairProducts: "products.pairs"
        case .contractionProducts: "products.contraction"
        case .reconstructionProducts: "products.reconstruction"
        case .denseProducts: "products.dense"
        case .furtherComponents: "reconstruction.components"
        case .pairTables(let encoding): "tables.pairs.\(encoding.name)"
        case .contractionTables(let encoding): "tables.contraction.\(encoding.name)"
        case .denseTables(let encoding): "tables.dense.\(encoding.name)"
        case .singularPairs: "singularPairs"
        case .refinement: "refinement"
        case .ranking: "ranking"
        case .mapping: "mapping"
        }
    }
}

extension MachineModel {
    /// Seconds of one thread for so many units of some work, each shared by `count` queries or pairs.
    ///
    /// Between two points the cost goes straight; beyond the last it grows as between the last two.
    func seconds(_ work: Work, units: Double, count: Int = 1) -> Double {
        guard let points = costs[work.name], let first = points.first else { return 0 }
        guard points.count > 1, count > first.count else { return units * first.nanoseconds * 1e-9 }
        let upper = points.firstIndex { $0.count >= count } ?? points.count - 1
        let (a, b) = (points[upper - 1], points[upper])
        let slope = max(0, b.nanoseconds - a.nanoseconds) / Double(b.count - a.count)
        return units * (a.nanoseconds + slope * Double(count - a.count)) * 1e-9
    }
}
