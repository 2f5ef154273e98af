public import Schema
import Scoring

/// How a query will be answered: what is read, in which form, how often, by how many threads. A plain value; see `Planner`.
public struct Plan: Sendable, Hashable {
    /// How the score is computed from rows and queries.
    public enum Form: String, Sendable {
        /// Queries as given against rows: dot and cosine.
        case direct
        /// (H + λI)⁻¹ folded into full-rank queries, so that only factors are read.
        case folded
        /// Only the rows' own coordinates: self-influence.
        case coordinates
    }

    /// How rows meet queries.
    public enum Kernel: String, Sendable, CaseIterable {
        /// Pages are decoded to tiles in f32, which go through matrix products.
        case tiles
        /// Rows are widened and multiplied in registers, where they lie.
        case pages
        /// int8 rows meet the queries' matrices in whole numbers; rows that the estimates leave open are scored again, exactly.
        case wholeNumbers = "whole-numbers"
        /// Low-bit codes are looked up in tables of the queries; rows that the estimates leave open are scored again, exactly.
        case tables
        /// The queries' leading singular pairs alone; rows that could be among the best by the measured error of these
        /// estimates are scored again, exactly.
        case leadingPairs = "leading-pairs"
    }

    /// Singular pairs of a query that `leadingPairs` takes in each layer.
    static let leadingPairCount = 8

    /// Where the rows' pages are before the scan.
    public enum Residency: String, Sendable {
        /// In the page cache, nearly all of them.
        case memory
        /// To be read from disk: more threads than processors keep it busy.
        case disk
    }

    /// How scores are computed.
    public let form: Form
    /// By which kernels.
    public let kernel: Kernel
    /// Where the pages are.
    public let residency: Residency
    /// Segments, by position in the store, that are read past the page cache; the others are read where they are mapped.
    public let directSegments: Set<Int>
    /// Store positions of the layers read.
    public let layers: [Int]
    /// Queries in all, those of each damping counted.
    public let queryCount: Int
    /// Dampings that every query is scored with; 1 for methods without.
    public let dampingCount: Int
    /// Rows to score.
    public let rowCount: Int
    /// Queries scored in one scan of the rows, and how many scans that takes.
    public let queriesPerScan: Int
    /// Times that the rows are read.
    public let scanCount: Int
    /// Threads.
    public let workers: Int
    /// Stored bytes of the pages that the scans read.
    public let byteCount: Int
    /// The part of them that must come from disk, if every scan finds what the one before has left in memory.
    public let diskByteCount: Int
    /// The part of them that is read past the page cache.
    public let directByteCount: Int
    /// Floating-point operations of the scans.
    public let flopCount: Int
    /// Peak memory of prepared queries, score blocks and tiles.
    public let memoryBytes: Int
    /// Seconds that preparing the queries and scanning will take, by the machine's model.
    public let preparationSeconds: Double
    /// The same for the scans.
    public let scanSeconds: Double
    /// What the machine can do at most.
    public let limits: Limits
    /// Rows whose self-influence comes from stored coordinates; it is computed from the factors of all others. 0 for methods that do
    /// not need it.
    public let coordinatesRowCount: Int
    /// How these are kept; nil if there are none.
    public let coordinatesEncoding: Encoding?

    /// What is known of the machine.
    public struct Limits: Sendable, Hashable {
        /// Bytes that all threads together can look at in a second.
        public let memoryBytesPerSecond: Double
        /// Bytes that the disk gives in a second, the way it is read here.
        public let diskBytesPerSecond: Double
        /// Operations of matrix products in f32 that all threads do in a second.
        public let flopsPerSecond: Double
        /// Whether they were measured on this machine.
        public let isMeasured: Bool
    }
}

/// How segments that are not in memory are read.
public enum ReadPath: String, Sendable, CaseIterable {
    /// By the planner: past the page cache if it could not keep them, or if the disk is much faster that way.
    case automatic = "auto"
    /// Through the page cache, where the next query finds them.
    case cache
    /// Past the page cache, which stays as it is.
    case direct
}
