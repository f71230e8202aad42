import io.socket.client.Ack;
import io.socket.client.IO;
import io.socket.client.Socket;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import org.json.JSONArray;
import org.json.JSONObject;

/** A client of socket.io-client for Java, driven by lines of JSON: commands on stdin, what happens on stdout. */
public class Bridge {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private static synchronized void say(String line) {
        OUT.println(line);
    }

    /** A value as JSON. */
    private static String json(Object value) {
        boolean isJson = value instanceof JSONObject || value instanceof JSONArray || value instanceof Number;
        return isJson ? value.toString() : JSONObject.quote(String.valueOf(value));
    }

    public static void main(String[] arguments) throws Exception {
        IO.Options options = new IO.Options();
        String transport = arguments[1];
        options.transports = transport.equals("upgrade") ? new String[] {"polling", "websocket"} : new String[] {transport};
        options.reconnectionDelay = 250;
        options.reconnectionDelayMax = 1000;
        Socket socket = IO.socket(new URI(arguments[0]), options);
        socket.on("connect", args -> say("{\"fact\":\"connect\"}"));
        socket.on("disconnect", args -> say("{\"fact\":\"disconnect\",\"reason\":" + json(args[0]) + "}"));
        for (String name : new String[] {"error", "connect_error"}) {
            socket.on(name, args -> {
                String message = args.length == 0 ? "" : args[0] instanceof JSONObject
                        ? ((JSONObject) args[0]).optString("message") : String.valueOf(args[0]);
                say("{\"fact\":\"error\",\"message\":" + json(message) + "}");
            });
        }
        for (String name : new String[] {"/jobs", "/message"}) {
            socket.on(name, args -> say("{\"event\":[" + json(name) + "," + json(args[0]) + "]}"));
        }
        socket.connect();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            JSONObject command = new JSONObject(line);
            if (command.has("close")) {
                break;
            }
            JSONArray emit = command.getJSONArray("emit");
            socket.emit(emit.getString(0), new Object[] {emit.get(1)}, (Ack) args -> say("{\"ack\":" + json(args[0]) + "}"));
        }
        System.exit(0);
    }
}
