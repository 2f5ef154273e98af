/// One thing that an examination of a machine or a store has looked at.
public struct Finding: Sendable, Hashable, Codable {
    /// How good it is.
    public enum Level: String, Sendable, Hashable, Codable, Comparable {
        case ok
        /// Things work, but worse than they could.
        case warn
        /// Something does not work.
        case fail

        /// Worse ones are greater.
        public static func < (a: Level, b: Level) -> Bool { a.order < b.order }
        private var order: Int { self == .ok ? 0 : self == .warn ? 1 : 2 }
    }

    /// What it belongs to: "machine", "libraries", "limits" or "store".
    public let topic: String
    /// What was looked at.
    public let name: String
    /// How good it is.
    public let level: Level
    /// What was found.
    public let found: String
    /// What to do about it; nil when it is well.
    public let advice: String?

    /// A finding; `advice` for one that is not well.
    public init(_ topic: String, _ name: String, _ found: String, level: Level = .ok, advice: String? = nil) {
        self.topic = topic
        self.name = name
        self.level = level
        self.found = found
        self.advice = advice
    }
}
