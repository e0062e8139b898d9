<?php // Activities in PHP for the worker runtime, which keeps this process and gives it one task at a time.
namespace TemporalHandler;

define(__NAMESPACE__ . '\IN', fopen('php://fd/0', 'r'));
define(__NAMESPACE__ . '\OUT', fopen('php://fd/1', 'w'));
fclose(STDIN) && define(__NAMESPACE__ . '\NOTHING', fopen('/dev/null', 'r')); // gets the number just closed, 0,
fclose(STDOUT) && define(__NAMESPACE__ . '\LOG', fopen('php://fd/2', 'w')); // and 1: echo and child processes go there

class Cancelled extends \Error {} // no \Exception: catch (\Exception) in a handler has to let it through

class Failure extends \Exception {
    public function __construct(string $message, public readonly array $fields = []) {
        parent::__construct($message);
    }
}

final class Task {
    public static array $handlers = [];
    public function __construct(public readonly object $message) {} // as sent: type, args, info, maybe heartbeat

    public function heartbeat(mixed $details = null): void {
        $this->send('heartbeat', $details);
        while (($read = [IN]) && stream_select($read, $none, $none, 0) && $message = json_decode((string) fgets(IN)))
            if ($message->id === $this->message->id) $this->message->cancel = $message->cancel;
        if (isset($this->message->cancel)) throw new Cancelled($this->message->cancel);
    }

    public function send(string $kind, mixed $value): void {
        $flags = $kind === 'failure' ? JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE : 0; // must get out
        $line = json_encode(['id' => $this->message->id, $kind => $value], $flags | JSON_UNESCAPED_UNICODE)
            ?: throw new Failure('not JSON: ' . json_last_error_msg(), ['type' => 'HandlerOutputInvalid']);
        fwrite(OUT, "$line\n") || exit(1); // the runtime is gone
    }
}

function activity(string $type, callable $handler): void { Task::$handlers[$type] = $handler; }

function run(): void {
    while ($message = json_decode((string) fgets(IN))) {
        if (!isset($message->type)) continue; // a cancellation that crossed the end of its task
        $task = new Task($message);
        try {
            $handler = Task::$handlers[$message->type] ?? Task::$handlers['*']
                ?? throw new Failure("no handler for $message->type", ['type' => 'UnknownActivityType']);
            $task->send('result', $handler($task, ...$message->args));
        } catch (Cancelled) {
            $task->send('cancel', true);
        } catch (\Throwable $error) {
            $failure = ['message' => $error->getMessage(), 'type' => $error::class, 'stackTrace' => "$error"];
            $task->send('failure', ($error instanceof Failure ? $error->fields : []) + $failure);
        }
    }
}
