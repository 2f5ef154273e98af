import ArgumentParser
import Foundation
import Glibc

/// `lorif import`: gradient stores of other programs, read by the Python package.
struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take over a gradient store of LogIX, bergson, dattri, TRAK or NumPy files.",
        discussion: """
            Reads the other program's files, turns every gradient so that the input side comes first, factors to --rank on the \
            way, and makes all rows visible by one commit. An interrupted import goes on where it stopped when it is repeated.

              lorif import bergson index/ store --rank 4 --queries query-index/
              lorif import logix logix/my-project store
              lorif import dattri cache/ store --layout matrix

            Runs 'python3 -m lorif.importers'; LORIF_PYTHON names another interpreter. 'lorif import --help' has its options, \
            and Tools/python/IMPORTING.md what is read and what is refused.
            """)

    @Argument(parsing: .captureForPassthrough, help: "FORMAT SOURCE STORE and options.")
    var arguments: [String] = []

    /// Becomes the interpreter: exit codes and signals are then its own.
    func run() throws {
        let named = ProcessInfo.processInfo.environment["LORIF_PYTHON"] ?? ""
        let interpreter = named.isEmpty ? "python3" : named
        if arguments.contains(where: { $0 == "--help" || $0 == "-h" }), !hasPackage(interpreter) {
            standardOutput(Lorif.helpMessage(for: Import.self) + "\n\n")
            return standardOutput(
                "The options are those of the Python package, which '\(interpreter)' lacks: pip install ./Tools/python\n"
            )
        }
        if let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            setenv("LORIF_BIN", path, 1)
        }
        // The parser's handlers end with this program, what it ignores does not.
        for number in [SIGINT, SIGTERM, SIGPIPE, SIGXFSZ] { signal(number, SIG_DFL) }
        let command = [interpreter, "-c", Self.bootstrap] + arguments
        var pointers = command.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        execvp(interpreter, pointers)
        let reason = String(cString: strerror(errno))
        throw CommandFailure(
            code: .environment,
            message: "the Python interpreter '\(interpreter)' cannot be started: \(reason); set LORIF_PYTHON to one "
                + "of at least 3.11 that has the package: pip install ./Tools/python")
    }

    /// Whether the interpreter is there and has the package.
    private func hasPackage(_ interpreter: String) -> Bool {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [interpreter, "-c", Self.search + "sys.exit(0 if is_there else 1)"]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }

    /// Looks for the module. The working directory is not searched: it may hold a folder named lorif.
    private static let search = """
        import importlib.util, runpy, sys
        sys.path[:1] = [] if sys.path[:1] == [''] else sys.path[:1]
        def found(name):
            try: return importlib.util.find_spec(name) is not None
            except ImportError: return False
        is_there = sys.version_info >= (3, 11) and found('lorif.importers')

        """

    /// Starts the module, or says how to get it.
    private static let bootstrap =
        search + """
            if not is_there:
                sys.stderr.write('lorif: ' + sys.executable + ' (Python %d.%d) ' % sys.version_info[:2] +
                    'lacks the package lorif (for Python 3.11 and later): install it with\\n  ' + sys.executable +
                    ' -m pip install ./Tools/python\\nor set LORIF_PYTHON to the interpreter that has it\\n')
                sys.exit(5)
            runpy.run_module('lorif.importers', run_name='__main__', alter_sys=True)
            """
}
